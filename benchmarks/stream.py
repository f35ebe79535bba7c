"""Streaming a bundle: speed over real time, evenness, memory, and sixteen streams at once.

    mirasol bench stream [--json FILE] [--rounds 5] [--quick] [--bundle build/bundle] [--file FILE] [--chunks 10000]

A 25 fps film of 640x360 with 44.1 kHz sound, made for this (or ``--file``), is opened, decoded and streamed as fast as
it goes, with two threads. Without a bundle, or with ``--quick``: a demo model with random weights, at the same cost.

`realtime`: seconds of film per second of elapsed time, which other programs lengthen;
`realtime_cpu` is per second of processor time of all threads, without other programs.
`chunk_p99_p50`: of the processor time of a chunk, including decoding and opening; that of elapsed time is in the
figures, and equal on an idle machine.
`resident_growth`: KiB of resident memory per 1,000 chunks, from chunk 200 on, decoding and answers included; the
interval is of the mean growth between readings 100 chunks apart. No growth beyond noise: it contains 0.
`streams_16`: chunks a second of 16 streams in 16 threads over one engine, over those of one stream, in turn by the
clock: at most the number of cores. `streams_equal`: the share of the 16 with answers and memory equal, bit for
bit, to those of the same stream alone.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bundles import QUESTION, random_bundle, random_model, write_film
from common import RESAMPLES, arguments, exact, in_turn, report, rounded, share, table

from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk, FileSource

THREADS, STREAMS, WARM, EVERY = 2, 16, 200, 100
PAGE = os.sysconf("SC_PAGE_SIZE")


def stream_once(engine: Engine, film: Path) -> dict[str, Any]:
    """Stream ``film``; seconds of it, and of each chunk by the clock and by the processor."""
    wall, cpu = [time.perf_counter()], [time.process_time()]
    source = FileSource(film, engine.contract.clip)
    session = Session(engine, source.chunk_seconds)
    for chunk in source:
        session.push(chunk.video, chunk.samples)
        wall.append(time.perf_counter())
        cpu.append(time.process_time())
    return {"seconds": session.chunks * source.chunk_seconds, "wall": np.diff(wall), "cpu": np.diff(cpu)}


def even(each: np.ndarray) -> float:
    """The 99th percentile over the median."""
    middle, late = np.percentile(each, [50, 99])
    return float(late / middle)


def speed(engine: Engine, film: Path, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Real time and evenness."""
    stream_once(engine, film)
    taken = [stream_once(engine, film) for _ in range(rounds)]
    ratios = {
        "realtime": share([t["seconds"] / t["wall"].sum() for t in taken]),
        "realtime_cpu": share([t["seconds"] / t["cpu"].sum() for t in taken]),
        "chunk_p99_p50": share([even(t["cpu"]) for t in taken]),
    }
    figures = {"seconds": taken[0]["seconds"], "chunks": len(taken[0]["wall"])}
    for kind in ("wall", "cpu"):
        every = np.concatenate([t[kind] for t in taken]) * 1e3
        p50, p99 = np.percentile(every, [50, 99])
        first = statistics.median(t[kind][0] for t in taken) * 1e3
        figures[f"chunk_ms_{kind}"] = {"p50": rounded(p50), "p99": rounded(p99), "first": rounded(first)}
    # A chunk's best of all rounds: what it costs where nothing disturbs it.
    figures["chunk_p99_p50_best_of_rounds"] = rounded(even(np.min([t["wall"] for t in taken], axis=0)))
    return ratios, figures


def resident(engine: Engine, film: Path, chunks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Resident memory while one session streams ``film`` over and over, and is asked now and then."""
    session = Session(engine)
    readings = []
    while session.chunks < chunks:
        for chunk in FileSource(film, engine.contract.clip):
            session.push(chunk.video, chunk.samples)
            if session.chunks % EVERY == 0:
                session.ask(QUESTION)
                readings.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1024)
            if session.chunks == chunks:
                break
    kept = readings[WARM // EVERY - 1 :]
    steps = np.diff(kept) / EVERY * 1000  # KiB per 1,000 chunks
    draw = random.Random(0)
    means = sorted(statistics.fmean(draw.choices(steps.tolist(), k=len(steps))) for _ in range(RESAMPLES))
    interval = [rounded(means[int(0.025 * RESAMPLES)]), rounded(means[int(0.975 * RESAMPLES) - 1])]
    growth = {"value": rounded(float(steps.mean())), "ci95": interval, "rounds": len(steps)}
    return growth, {"chunks": chunks, "kib_at_200": kept[0], "kib_at_end": kept[-1], "kib_most": max(kept)}


def streams(engine: Engine, film: Path, rounds: int, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sixteen streams in as many threads against one, over the same chunks."""
    chunks = list(itertools.islice(FileSource(film, engine.contract.clip), 20 if quick else 100))

    def run(offset: int) -> tuple[list[str], bytes]:
        """The film from another place on for every stream."""
        session, answers = Session(engine), []
        turned: list[Chunk] = chunks[offset:] + chunks[:offset]
        for number, chunk in enumerate(turned):
            session.push(chunk.video, chunk.samples)
            if number % 10 == 9:
                answers.append(session.ask(QUESTION))
        return answers, session.memory[0].tobytes()

    alone = [run(offset) for offset in range(STREAMS)]
    found: list[Any] = []

    def together() -> None:
        with ThreadPoolExecutor(STREAMS) as pool:
            found.append(list(pool.map(run, range(STREAMS))))

    works = {"one": lambda: [run(offset) for offset in range(STREAMS)], "sixteen": together}
    taken = in_turn(works, rounds, clock)
    ratios = {
        "streams_16": share([one / many for one, many in zip(taken["one"], taken["sixteen"], strict=True)]),
        "streams_equal": exact(statistics.fmean(a == b for each in found for a, b in zip(each, alone, strict=True))),
    }
    count = STREAMS * len(chunks)
    return ratios, {f"chunks_per_second_{name}": rounded(count / statistics.median(t)) for name, t in taken.items()}


def clock(work: Any) -> float:
    """Seconds by the clock: threads are compared, and processor time does not see that they run at once."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("build/bundle"), help="a bundle, where there is one")
    parser.add_argument("--file", type=Path, help="a media file instead of the one that is made")
    parser.add_argument("--chunks", type=int, default=10_000, help="length of the stream whose memory is watched")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = options.bundle.is_dir() and not options.quick
        bundle = options.bundle if trained else random_bundle(folder, random_model("transformer"))
        film = options.file or write_film(folder / "film.mp4", 12 if options.quick else 120)
        ratios, figures = speed(Engine(bundle, threads=THREADS, provider="cpu"), film, options.rounds)
        single = Engine(bundle, threads=1, provider="cpu")
        found, counted = streams(single, film, options.rounds, options.quick)
        ratios |= found
        growth, memory = resident(single, film, 500 if options.quick else options.chunks)
    ratios["resident_growth"] = growth
    figures |= {**counted, "memory": memory, "trained": trained, "threads": THREADS}
    rows: list[tuple[object, ...]] = [("a chunk", "p50 ms", "p99 ms", "first ms")]
    for kind in ("wall", "cpu"):
        chunk = figures[f"chunk_ms_{kind}"]
        rows.append((kind, chunk["p50"], chunk["p99"], chunk["first"]))
    table(rows)
    report("stream", options.json, ratios, figures)


if __name__ == "__main__":
    main()
