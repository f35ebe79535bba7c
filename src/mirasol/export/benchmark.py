"""How fast a bundle streams: files with their decoding, and each step beside torch's eager one."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.manifest import clips_of, read_manifest
from mirasol.export.config import BenchmarkSpec
from mirasol.export.signature import StepGraph, step_graphs
from mirasol.model.mirasol import Mirasol
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources import FileSource

STEPS = 40  # of each graph per round and side


def benchmark(
    model: Mirasol, bundle: str | Path, data: str | Path, spec: BenchmarkSpec, *, split: str
) -> dict[str, Any]:
    """Time the streaming of media files of ``split`` through ``bundle``.

    Sides that are compared are timed in turn in this process, round after round, so that a busy machine
    slows both down.

    Returns:
        ``reports/latency.json``: ``realtime.median`` (seconds of clip per second of wall time: decoding,
        features and both chunk steps) with the spread over rounds, ``chunk_ms`` (p50, p99, decoding
        included), ``answer_ms``, ``step_ms`` per graph, ``torch_over_ort`` per graph (eager step over
        exported step), ``state_bytes``, ``machine``.

    Raises:
        MirasolError: the split has no clip with a picture, or the bundle or a file cannot be used.
    """
    model.eval()
    engine = Engine(bundle, threads=spec.threads)
    data = Path(data)
    clips = [clip for clip in clips_of(read_manifest(data / "manifest.jsonl")) if clip.split == split]
    if not clips:
        raise MirasolError(f"{data / 'manifest.jsonl'}: no clip in the split {split}: there is nothing to stream")
    numbers = np.unique(np.linspace(0, len(clips) - 1, min(spec.clips, len(clips))).round().astype(int))
    chosen = [clips[int(number)] for number in numbers]
    graphs = step_graphs(model)
    streamed: list[tuple[float, float]] = []
    chunk_ms: list[float] = []
    answer_ms: list[float] = []
    steps: dict[str, tuple[list[float], list[float]]] = {graph.name: ([], []) for graph in graphs}
    ratios: dict[str, list[float]] = {graph.name: [] for graph in graphs}
    state_bytes = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    try:
        with Progress("benchmark", spec.rounds + 1, "rounds") as progress, torch.no_grad():
            for round_ in range(spec.rounds + 1):  # the first one warms up
                seconds, wall = 0.0, 0.0
                for clip in chosen:
                    source = FileSource(data / clip.media, engine.contract.clip, clip.start, clip.end)
                    session = Session(engine, source.chunk_seconds)
                    each = _stream(session, source)
                    begun = time.perf_counter()
                    session.ask(clip.examples[0].prompt)
                    if round_:
                        answer_ms.append((time.perf_counter() - begun) * 1e3)
                        chunk_ms += each
                    seconds += session.chunks * source.chunk_seconds
                    wall += sum(each) / 1e3
                    state_bytes = session.state_bytes
                for graph in graphs:
                    ours, eager = _steps(engine, graph, STEPS if round_ else 3)
                    if round_:
                        steps[graph.name][0].extend(ours)
                        steps[graph.name][1].extend(eager)
                        ratios[graph.name].append(statistics.median(eager) / statistics.median(ours))
                if round_:
                    streamed.append((seconds, wall))
                progress.advance(realtime=seconds / wall)
    finally:
        torch.set_num_threads(threads)
    realtime = [seconds / wall for seconds, wall in streamed]
    return {
        "realtime": {"median": _round(statistics.median(realtime))},
        "realtime_rounds": {"low": _round(min(realtime)), "high": _round(max(realtime)), "rounds": spec.rounds},
        "streamed": {"files": len(chosen), "seconds": _round(streamed[0][0]), "split": split},
        "chunk_ms": _quantiles(chunk_ms),
        "answer_ms": _quantiles(answer_ms),
        "step_ms": {
            name: {"onnxruntime": _quantiles(ours), "torch": _quantiles(eager)} for name, (ours, eager) in steps.items()
        },
        "torch_over_ort": {
            name: {"median": _round(statistics.median(values)), "low": _round(min(values)), "high": _round(max(values))}
            for name, values in ratios.items()
        },
        "state_bytes": state_bytes,
        "combiner": model.config.combiner,
        "machine": machine(spec.threads),
    }


def _stream(session: Session, source: FileSource) -> list[float]:
    """Milliseconds of each chunk, the opening of the file counted to the first one."""
    each: list[float] = []
    chunks = iter(source)
    while True:
        begun = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            each[-1] += (time.perf_counter() - begun) * 1e3  # to find the end is part of the work
            return each
        session.push(chunk.video, chunk.samples)
        each.append((time.perf_counter() - begun) * 1e3)


def _steps(engine: Engine, graph: StepGraph, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of ``count`` steps in onnxruntime and in torch, one after the other."""
    tensors = graph.example()
    arrays = {spec.name: tensor.numpy() for spec, tensor in zip(graph.spec.inputs, tensors, strict=True)}
    step = engine.step(graph.name)
    ours, eager = [], []
    for _ in range(count):
        ours.append(_milliseconds(lambda: step(arrays)))
        eager.append(_milliseconds(lambda: graph.module(*tensors)))
    return ours, eager


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def _quantiles(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": _round(float(p50)), "p99": _round(float(p99))}


def _round(value: float) -> float:
    """Three significant digits: more would only be noise in git."""
    return float(f"{value:.3g}")


def machine(threads: int) -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
