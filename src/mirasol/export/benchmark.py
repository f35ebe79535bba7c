"""How fast a bundle streams: files with their decoding, and each step beside torch's eager one."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.manifest import Clip, clips_of, read_manifest
from mirasol.data.storage import local_file
from mirasol.export.config import BenchmarkSpec
from mirasol.export.signature import StepGraph, step_graphs
from mirasol.media.container import reason
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import FileSource

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
        included), ``answer_ms``, ``step_ms`` per graph, ``torch_over_ort`` per graph (eager step, with
        one thread or all, whichever is faster, over exported step), ``state_bytes``, ``machine``.

    Raises:
        MirasolError: the model cannot stream, the split has no clip, or the bundle or a file cannot be used.
    """
    model.eval()
    graphs = step_graphs(model)  # first: a model that cannot stream has no bundle either
    engine = Engine(bundle, threads=spec.threads)
    clips = _choose(Path(data), split, spec.clips)
    taken = Timings()
    with contextlib.ExitStack() as files, Progress("benchmark", spec.rounds, "rounds") as progress:
        chosen = [(clip, files.enter_context(_local(Path(data), clip.media))) for clip in clips]
        _round(engine, chosen[:1], graphs, 2, spec.threads, Timings())  # warms everything up
        for _ in range(spec.rounds):
            _round(engine, chosen, graphs, STEPS, spec.threads, taken)
            progress.advance(realtime=taken.realtime[-1])
    return {
        "realtime": {"median": rounded(statistics.median(taken.realtime))},
        "realtime_rounds": {**_spread(taken.realtime), "rounds": spec.rounds},
        "streamed": {"files": len(clips), "seconds": rounded(taken.seconds / spec.rounds), "split": split},
        "chunk_ms": _quantiles(taken.chunk_ms),
        "answer_ms": _quantiles(taken.answer_ms),
        "step_ms": {
            name: {"onnxruntime": _quantiles(taken.ort_ms[name]), "torch": _quantiles(taken.torch_ms[name])}
            for name in taken.ratios
        },
        "torch_over_ort": {
            name: {"median": rounded(statistics.median(values)), **_spread(values)}
            for name, values in taken.ratios.items()
        },
        "state_bytes": Session(engine).state_bytes,
        "combiner": model.config.combiner,
        "machine": machine(spec.threads),
    }


@dataclass
class Timings:
    """What all rounds measured."""

    realtime: list[float] = field(default_factory=list)  # one per round
    seconds: float = 0.0  # of media
    chunk_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    ort_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by graph
    torch_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # one per round


def _choose(data: Path, split: str, count: int) -> list[Clip]:
    """``count`` clips spread over the split."""
    clips = [clip for clip in clips_of(read_manifest(data / "manifest.jsonl")) if clip.split == split]
    if not clips:
        raise MirasolError(f"{data / 'manifest.jsonl'}: no clip in the split {split}: there is nothing to stream")
    numbers = np.unique(np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int))
    return [clips[int(number)] for number in numbers]


@contextlib.contextmanager
def _local(data: Path, media: str) -> Iterator[Path]:
    """A local file of ``media``, fetched before anything is timed."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(local_file(data, media))
        except (FileNotFoundError, PermissionError) as error:
            raise MirasolError(f"{media}: cannot be fetched: {reason(error)}") from error
        yield path


def _round(
    engine: Engine,
    clips: list[tuple[Clip, Path]],
    graphs: list[StepGraph],
    steps: int,
    threads: int,
    taken: Timings,
) -> None:
    seconds = wall = 0.0
    for clip, path in clips:
        source = FileSource(path, engine.contract.clip, clip.start, clip.end)
        session = Session(engine, source.chunk_seconds)
        each = _stream(session, source)
        taken.answer_ms += _times(partial(session.ask, clip.examples[0].prompt), 1)
        taken.chunk_ms += each
        seconds += session.chunks * source.chunk_seconds
        wall += sum(each) / 1e3
    taken.realtime.append(seconds / wall)
    taken.seconds += seconds
    for graph in graphs:
        tensors = graph.example()
        arrays = {spec.name: tensor.numpy() for spec, tensor in zip(graph.spec.inputs, tensors, strict=True)}
        # One side after the other, not step by step: the idle threads of one would slow the other down.
        ours = _times(partial(engine.step(graph.name), arrays), steps)
        eager = min((_eager(graph, tensors, steps, n) for n in {1, threads}), key=statistics.median)
        taken.ort_ms[graph.name] += ours
        taken.torch_ms[graph.name] += eager
        taken.ratios[graph.name].append(statistics.median(eager) / statistics.median(ours))


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


@torch.no_grad()
def _eager(graph: StepGraph, tensors: tuple[torch.Tensor, ...], steps: int, threads: int) -> list[float]:
    """Torch's milliseconds with ``threads``; small steps are faster with one, and torch is given its best."""
    with torch_threads(threads):
        return _times(partial(graph.module, *tensors), steps)


def _times(work: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls."""
    each = []
    for _ in range(count):
        begun = time.perf_counter()
        work()
        each.append((time.perf_counter() - begun) * 1e3)
    return each


def _quantiles(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": rounded(float(p50)), "p99": rounded(float(p99))}


def _spread(values: list[float]) -> dict[str, float]:
    return {"low": rounded(min(values)), "high": rounded(max(values))}


def rounded(value: float) -> float:
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
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
