"""Keys of reports/parity.json and reports/latency.json in words, for the tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mirasol.evaluation.report.html import leaves, number, percent

Rows = list[tuple[str, Any]]
PARITY = {
    "clips": "clips compared",
    "chunks": "chunks of them",
    "answers": "answers compared",
    "answers_equal": "of them equal to PyTorch's",
    "ties": "of them between two words that are equally likely",
    "different": "answers that differ",
    "max_relative": "largest relative difference",
    "x": "of the combined features",
    "h": "of the latent features",
    "logits": "of the scores of words",
    "tolerance": "largest difference allowed",
}
GRAPHS = {
    "audio_step": "sound of a chunk",
    "encoder_combiner_step": "encoder and combiner",
    "latent_step": "latent model",
    "text_step": "a word of the answer",
}
LATENCY = {
    "chunk_ms": "a chunk, decoding included",
    "answer_ms": "an answer",
    "realtime": "times faster than real time",
    "realtime_rounds": "times faster than real time, rounds",
    "state_bytes": "memory of a stream",
    "streamed": "measured on",
    "combiner": "combiner",
}
QUANTILES = {"p50": "typical", "p99": "slowest in 100", "low": "from", "high": "to"}


def parity_rows(report: Mapping[str, Any]) -> Rows:
    """The comparison with PyTorch, and what each lower precision loses."""
    rows: Rows = [(words, report[key]) for key, words in PARITY.items() if key in report]
    for name, cell in _mappings(report.get("precisions")):
        parts = [f"{percent(cell['exact_match'])} right"] if "exact_match" in cell else []
        parts += [f"{cell['bytes'] / 1e6:.1f} MB"] if "bytes" in cell else []
        parts += ["not shipped"] if cell.get("shipped") is False else []
        rows.append((f"as {name}", ", ".join(parts)))
    return rows


def latency_rows(report: Mapping[str, Any]) -> Rows:
    """Times of the exported stream, and next to PyTorch's by graph; keys that are not known keep their names."""
    rows: Rows = []
    for key, value in report.items():
        if key == "step_ms":
            for graph, engines in _mappings(value):
                times = [f"{engine} {_times(cell)}" for engine, cell in _mappings(engines)]
                rows.append((GRAPHS.get(graph, graph), ", ".join(times) or value[graph]))
        elif key.endswith("_ms") and isinstance(value, Mapping):
            rows.append((LATENCY.get(key, key), _times(value)))
        elif key == "state_bytes" and isinstance(value, int):
            rows.append((LATENCY[key], f"{value / 1024:,.0f} KiB, however long the stream"))
        elif key == "torch_over_ort":
            ratios = [f"{GRAPHS.get(graph, graph)} {number(cell['median'])}" for graph, cell in _mappings(value)]
            rows.append(("times faster than PyTorch", ", ".join(ratios)))
        elif key == "machine" and isinstance(value, Mapping):
            rows += [(f"machine: {name}".replace("_", " "), inner) for name, inner in value.items()]
        elif key in LATENCY:
            rows.append((LATENCY[key], value))
        else:
            rows += leaves({key: value})
    return rows


def _mappings(value: object) -> Iterable[tuple[str, Mapping[str, Any]]]:
    inner = value.items() if isinstance(value, Mapping) else ()
    return [(key, cell) for key, cell in inner if isinstance(cell, Mapping)]


def _times(cell: Mapping[str, Any]) -> str:
    """``5.65 ms, slowest in 100: 11.1 ms``."""
    parts = [f"{QUANTILES.get(name, name)} {number(value)} ms" for name, value in cell.items()]
    return ", ".join(parts)
