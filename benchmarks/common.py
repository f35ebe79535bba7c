"""Shared by all benchmarks: two things timed in turn, ratios with their interval, peak memory, one JSON file.

    {name, commit, machine, ratios: {claim: {value, ci95, rounds}}, figures}

Needs only torch and mirasol.core, so that a bare checkout can run it with ``PYTHONPATH=src``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler about itself

import torch

from mirasol.core.files import write_json
from mirasol.core.machine import cores, processor

Work = Callable[[], object]
RESAMPLES = 2000


def arguments(doc: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has: ``--json``, ``--rounds`` and ``--quick``."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=f"mirasol bench {name}",
        description=(doc or "").splitlines()[0],
        epilog=f"Example:  mirasol bench {name} --json runs/{name}.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # which folds no spaces
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, whole or not at all")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each thing is timed, in turn")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs, not for figures")
    return parser


def cpu_seconds(work: Work) -> float:
    """Processor seconds of one call on one thread: other programs disturb them less than elapsed time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def clock_seconds(work: Work) -> float:
    """Elapsed seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def cuda_seconds(work: Work) -> float:
    """Seconds until the GPU has finished the work of one call."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_turn(works: dict[str, Work], rounds: int, seconds: Callable[[Work], float] = cpu_seconds) -> dict[str, Any]:
    """Seconds of each of ``works`` in each round, [name][round]; every second round goes backwards.

    Each is called once before the first round.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds, expected at least 1")
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(works):
            taken[name].append(seconds(works[name]))
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """``above / below`` of each round: the median, and its 95 % interval by bootstrap over rounds."""
    return share([a / b for a, b in zip(above, below, strict=True)])


def share(each: Sequence[float]) -> dict[str, Any]:
    """A ratio that each round gave: the median, and its 95 % interval by bootstrap over rounds."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(each, k=len(each))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return {"value": rounded(statistics.median(each)), "ci95": [rounded(low), rounded(high)], "rounds": len(each)}


def exact(value: float) -> dict[str, Any]:
    """A ratio that every round would give again, such as one of counted bytes."""
    return {"value": rounded(value), "ci95": [rounded(value)] * 2, "rounds": 1}


def peak_mib(work: Work, device: str = "cpu") -> float:
    """Peak MiB of tensors in ``work``, beyond those that existed before: counted, not sampled.

    On a CPU from torch's profiler, which writes down every allocation; on CUDA from torch's allocator.
    """
    work()  # what is made once and kept is no part of it
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    totals = [e["args"]["Total Allocated"] for e in memory]
    return float(max(totals) - (totals[0] - memory[0]["args"]["Bytes"])) / 2**20


def machine() -> dict[str, Any]:
    """The machine of the figures."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str | None:
    """The commit of this checkout, with ``+`` where files differ from it; ``None`` outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed.stdout else "")


def report(name: str, path: Path | None, ratios: dict[str, Any], figures: dict[str, Any]) -> None:
    """Print the ratios; write everything to ``path`` if there is one."""
    print()
    for claim, found in ratios.items():
        low, high = found["ci95"]
        print(f"{claim:<28}{found['value']:>9g}   95 % {low:g} to {high:g}, rounds: {found['rounds']}")
    if path:
        result = {"name": name, "commit": commit(), "machine": machine(), "ratios": ratios, "figures": figures}
        write_json(path, result)
        print(f"-> {path}")


def table(rows: Sequence[Sequence[object]]) -> None:
    """Rows of cells, the first of them the heading; all columns but the first are aligned to the right."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([row[0].ljust(widths[0]), *rest]), flush=True)


def spread(found: dict[str, Any]) -> str:
    """A ratio as one cell of a table."""
    return f"{found['value']:g} ({found['ci95'][0]:g} to {found['ci95'][1]:g})"


def median_ms(seconds: Sequence[float]) -> float:
    """Milliseconds, the median."""
    return rounded(statistics.median(seconds) * 1e3)


def rounded(value: float) -> float:
    """Four significant digits: more would only be noise."""
    return float(f"{value:.4g}")
