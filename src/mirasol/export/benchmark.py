"""Stream files through a bundle, decoding included: its answers, and the times next to eager torch."""

from __future__ import annotations

import contextlib
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
from mirasol.core.machine import cores, processor
from mirasol.core.progress import Progress
from mirasol.data.manifest import Clip, Example, clips_of, read_manifest
from mirasol.data.storage import local_file
from mirasol.export.config import BenchmarkSpec
from mirasol.export.io_spec import StepGraph, step_graphs
from mirasol.media.container import reason
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.runtime.contract import CONTRACT_FILE
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import FileSource
from mirasol.tasks.scoring.normalise import exact_match

STEPS = 40  # of each graph per round and side
PRECISION_ROUNDS = 5
Series = defaultdict[str, list[float]]  # by graph


def benchmark(
    model: Mirasol, bundle: str | Path, data: str | Path, spec: BenchmarkSpec, *, split: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stream media files of ``split`` through ``bundle``, and time it.

    The two sides of a comparison take turns in this process, so that a busy machine slows both.

    Returns:
        The same for equal inputs: ``bundle`` (the contract's sha256), ``combiner``, ``state_bytes``, ``streamed``
        (files, seconds, chunks, split) and ``answers`` to a question about each file, with ``right`` and whether they
        were ``equal`` in every round.
        Times: ``realtime.median`` (seconds of clip per second of decoding, features and both chunk steps) and its
        spread over rounds, ``chunk_ms`` (p50, p99, with decoding), ``answer_ms``, ``step_ms`` per graph,
        ``torch_over_ort`` per graph (eager step with one thread or all, the faster, over exported step),
        ``precision_over_float32`` (a chunk's time, for each lower precision in the bundle), ``machine``.

    Raises:
        MirasolError: the model cannot stream, the split has no clip, or the bundle or a file cannot be used.
    """
    model.eval()
    graphs = step_graphs(model)  # first: raises for a model that cannot stream
    engine = Engine(bundle, threads=spec.threads)
    clips = _choose(Path(data), split, spec.clips)
    taken = Timings()
    with contextlib.ExitStack() as files, Progress("benchmark", spec.rounds, "rounds") as progress:
        chosen = [(clip, files.enter_context(_local(Path(data), clip.media))) for clip in clips]
        _round(engine, chosen[:1], graphs, 2, spec.threads, Timings())  # warm-up
        for _ in range(spec.rounds):
            _round(engine, chosen, graphs, STEPS, spec.threads, taken)
            progress.advance(realtime=taken.realtime[-1])
        precisions = _precisions(engine, *chosen[0])
    streamed = {
        "bundle": engine.contract.sha256,
        "combiner": model.config.combiner,
        "state_bytes": Session(engine).state_bytes,
        "streamed": {
            "files": len(clips),
            "seconds": rounded(taken.seconds / spec.rounds),
            "chunks": len(taken.chunk_ms) // spec.rounds,
            "split": split,
        },
        "answers": [_answers(clip, taken.answers[clip.key]) for clip in clips],
    }
    times = {
        "realtime": _median(taken.realtime),
        "realtime_rounds": {**_spread(taken.realtime), "rounds": spec.rounds},
        "chunk_ms": _quantiles(taken.chunk_ms),
        "answer_ms": _quantiles(taken.answer_ms),
        "step_ms": {
            name: {"onnxruntime": _quantiles(taken.ort_ms[name]), "torch": _quantiles(taken.torch_ms[name])}
            for name in taken.ratios
        },
        "torch_over_ort": {name: _median(values) | _spread(values) for name, values in taken.ratios.items()},
        "precision_over_float32": precisions,
        "machine": machine(spec.threads),
    }
    return streamed, times


def _asked(clip: Clip) -> Example:
    """The first question about a clip; the first text of one without questions."""
    return next((example for example in clip.examples if example.task == "qa"), clip.examples[0])


def _answers(clip: Clip, answers: list[str]) -> dict[str, Any]:
    """The answers of all rounds about one clip."""
    asked = _asked(clip)
    return {
        "media": clip.media,
        "question": asked.prompt,
        "answer": answers[0],
        "right": exact_match(answers[0], asked.answers),
        "equal": len(set(answers)) == 1,
    }


@dataclass
class Timings:
    """Measurements of all rounds."""

    realtime: list[float] = field(default_factory=list)  # one per round
    seconds: float = 0.0  # of media
    chunk_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    ort_ms: Series = field(default_factory=lambda: defaultdict(list))
    torch_ms: Series = field(default_factory=lambda: defaultdict(list))
    ratios: Series = field(default_factory=lambda: defaultdict(list))  # one per round
    answers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by clip, one per round


def _choose(data: Path, split: str, count: int) -> list[Clip]:
    """``count`` clips spread over the split."""
    clips = [clip for clip in clips_of(read_manifest(data / "manifest.jsonl")) if clip.split == split]
    if not clips:
        raise MirasolError(f"{data / 'manifest.jsonl'}: no clip in the split {split}: nothing to stream")
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
    engine: Engine, clips: list[tuple[Clip, Path]], graphs: list[StepGraph], steps: int, threads: int, taken: Timings
) -> None:
    seconds = wall = 0.0
    for clip, path in clips:
        source = FileSource(path, engine.contract.clip, clip.start, clip.end)
        session = Session(engine, source.chunk_seconds)
        each = _stream(session, source)
        begun = time.perf_counter()
        answer = session.ask(_asked(clip).prompt)
        taken.answer_ms.append((time.perf_counter() - begun) * 1e3)
        taken.answers[clip.key].append(answer.text)
        taken.chunk_ms += each
        seconds += session.chunks * source.chunk_seconds
        wall += sum(each) / 1e3
    taken.realtime.append(seconds / wall)
    taken.seconds += seconds
    for graph in graphs:
        tensors = graph.example()
        arrays = {spec.name: tensor.numpy() for spec, tensor in zip(graph.spec.inputs, tensors, strict=True)}
        # One side after the other: idle threads of one side would slow down the other's steps.
        ours = _times(partial(engine.step(graph.name), arrays), steps)
        eager = min((_eager(graph, tensors, steps, n) for n in {1, threads}), key=statistics.median)
        taken.ort_ms[graph.name] += ours
        taken.torch_ms[graph.name] += eager
        taken.ratios[graph.name].append(statistics.median(eager) / statistics.median(ours))


def _stream(session: Session, source: FileSource) -> list[float]:
    """Milliseconds of each chunk; opening the file counts for the first, finding its end for the last."""
    each: list[float] = []
    chunks = iter(source)
    while True:
        begun = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            each[-1] += (time.perf_counter() - begun) * 1e3
            return each
        session.push(chunk.video, chunk.samples)
        each.append((time.perf_counter() - begun) * 1e3)


def _precisions(full: Engine, clip: Clip, path: Path) -> dict[str, float]:
    """Time of a chunk in each lower precision of the bundle over float32's: the median over rounds, timed in turn."""
    source = FileSource(path, full.contract.clip, clip.start, clip.end)
    chunks = list(source)

    def milliseconds(engine: Engine) -> float:
        session = Session(engine, source.chunk_seconds)
        each: list[float] = []
        for i in range(STEPS):
            chunk = chunks[i % len(chunks)]
            each += _times(partial(session.push, chunk.video, chunk.samples), 1)
        return statistics.median(each)

    found = {}
    single = Engine(full.bundle, threads=1)
    for contract in sorted(full.bundle.glob(f"*/{CONTRACT_FILE}")):
        engine = Engine(contract.parent, threads=1)
        ratios = [milliseconds(engine) / milliseconds(single) for _ in range(PRECISION_ROUNDS)]
        found[contract.parent.name] = rounded(statistics.median(ratios))
    return found


@torch.no_grad()
def _eager(graph: StepGraph, tensors: tuple[torch.Tensor, ...], steps: int, threads: int) -> list[float]:
    """Torch's milliseconds with ``threads``."""
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


def _median(values: list[float]) -> dict[str, float]:
    return {"median": rounded(statistics.median(values))}


def _spread(values: list[float]) -> dict[str, float]:
    return {"low": rounded(min(values)), "high": rounded(max(values))}


def rounded(value: float) -> float:
    """Three significant digits; more would be noise in git."""
    return float(f"{value:.3g}")


def machine(threads: int) -> dict[str, Any]:
    """The machine and versions of a measurement."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
