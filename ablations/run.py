"""The grid of an ablation: cells as DVC experiments, several at a time, each kept when it is finished.

`runs/workspaces/ablations` is made from one commit of the project, with the hard world as its data and
ablations/pipeline.yaml as its pipeline. Each worker has a clone of it, `ablations-1`, `ablations-2`, … and runs one
cell after another in it with `dvc exp run`; finished cells go to `ablations`, where `dvc exp show` lists them, and to
`ablations/runs/cells`. All share the project's cache, so that shards are made once.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ruamel.yaml import YAML

from ablations.tables import Cell, Grid, cut_of
from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, write_json
from mirasol.data.conditions import Condition
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import git, mirasol
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.workspace import WORKSPACES, make_workspace

HOME = WORKSPACES / "ablations"
CELLS = Path("runs", "cells")  # of that workspace
SOURCES = {  # of the project -> in the workspace
    "recipes/ablations.yaml": "params.yaml",
    "ablations/pipeline.yaml": "dvc.yaml",
    "ablations/cell.yaml": "cell.yaml",
}
RECIPE = ("recipes/ablations.yaml", "ablations/cell.yaml")  # the sources that decide a cell's result
NO_CELL_NEEDS = ("audio_pretrain", "export", "benchmark")  # sections of a recipe
SHARED = ("tokenizer", "shards")  # stages that cells of one cut have in common

Say = Callable[[str], None]


def prepare(root: Path, clips: int, say: Say = print) -> Path:
    """The workspace of all cells; an existing one stays on the commit that it was made from.

    Raises:
        MirasolError: an existing one was made from another recipe than the project's.
    """
    home = root / HOME
    if (home / "data.dvc").exists() and (home / "cell.yaml").exists():
        ours = {name: (root / name).read_text(encoding="utf-8") for name in RECIPE}
        other = [
            name for name in RECIPE if _decisive(ours[name]) != _decisive(git(home, "show", f"HEAD:{SOURCES[name]}"))
        ]
        if other:
            raise MirasolError(
                f"{home} was made from another {' and '.join(other)} than the project's: its cells would not go "
                f"together with new ones. Save the parts that you need, then delete it: rm -r {home}*"
            )
        return home

    def fill(folder: Path) -> None:
        for source, target in SOURCES.items():
            shutil.copyfile(folder / source, folder / target)
        mirasol(folder, "world", "--hard", "--clips", str(clips), "--out", "data", "--force", on_line=say)
        dvc.call(folder, "add", "data", on_line=say)
        git(folder, "add", *SOURCES.values(), "data.dvc")

    return make_workspace(HOME.name, root=root, fill=fill, say=say)


def _decisive(recipe: str) -> dict[str, Any]:
    """The sections of a recipe that decide cells."""
    tree = YAML(typ="safe").load(recipe)
    return {name: values for name, values in tree.items() if name not in NO_CELL_NEEDS}


def finished(home: Path, cell: Cell) -> dict[str, Any] | None:
    """The report of a finished cell, with commit and seconds; ``None`` for any other."""
    path = home / CELLS / cell.name / "cell.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def seconds_each(reports: Sequence[dict[str, Any]], grid: Grid) -> float:
    """Seconds of a cell: the mean of ``reports``, or the estimate of the tables as long as none has run."""
    return sum(report["wall"] for report in reports) / len(reports) if reports else grid.minutes * 60


def run_cells(root: Path, cells: Sequence[Cell], grid: Grid, jobs: int, say: Say = print) -> Path:
    """Run those of ``cells`` that have not run yet, ``jobs`` at a time; a kill loses the unfinished cells only.

    Returns:
        The workspace of the cells.

    Raises:
        MirasolError: cells failed; the others have run.
    """
    home = prepare(root, grid.clips, say)
    reports = {cell: finished(home, cell) for cell in cells}
    todo = [cell for cell, report in reports.items() if report is None]
    seconds = seconds_each([report for report in reports.values() if report is not None], grid)
    said = f"; about {len(todo) * seconds / jobs / 60:.0f} min, {jobs} at a time" if todo else ""
    say(f"[ablate] {len(cells)} cells, {len(todo)} to run{said}")
    if not todo:
        return home
    board = _Board(todo, jobs, say)
    with hold(home, "mirasol ablate", say=say) as lock, _killed_whole():
        for cut in dict.fromkeys(cut_of(cell) for cell in todo):
            _make_shards(home, cut, lock, say)
        threads = [threading.Thread(target=_work, args=(home, n, board), daemon=True) for n in range(1, jobs + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=1.0)  # a join without end would keep Ctrl-C waiting
    if board.failures:
        raise MirasolError(
            f"{len(board.failures)} of {len(todo)} cells failed:\n" + "\n".join(board.failures) + "\nRun again: "
            "finished cells stay"
        )
    return home


@contextlib.contextmanager
def _killed_whole() -> Iterator[None]:
    """Ctrl-C and SIGTERM end this process at once: each cell's supervisor then ends its children."""

    def leave(number: int, frame: FrameType | None) -> None:
        print("\nstopped; run again to go on: finished cells stay", flush=True)
        os._exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Board:
    """The cells left to run, and the time that they will take."""

    def __init__(self, todo: Sequence[Cell], jobs: int, say: Say) -> None:
        self.left: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        for cell in todo:
            self.left.put(cell)
        self.total, self.jobs, self.say = len(todo), jobs, say
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.lock = threading.Lock()

    def take(self) -> Cell | None:
        with contextlib.suppress(queue.Empty):
            return self.left.get_nowait()
        return None

    def done(self, cell: Cell, seconds: float, accuracy: float) -> None:
        with self.lock:
            self.seconds.append(seconds)
            count = len(self.seconds) + len(self.failures)
            each = sum(self.seconds) / len(self.seconds)
            left = (self.total - count) * each / self.jobs / 60
            self.say(
                f"[ablate] {count}/{self.total} cells, {cell.name} in {seconds / 60:.1f} min: {accuracy:.3f}; "
                f"about {left:.0f} min left"
            )

    def failed(self, cell: Cell, error: Exception) -> None:
        with self.lock:
            self.failures.append(f"{cell.name} ({' '.join(cell.settings)}): {error}")
            self.say(f"[ablate] {cell.name} failed: {str(error).splitlines()[0]}")


def _make_shards(home: Path, cut: tuple[tuple[str, Any], ...], lock: Lock, say: Say) -> None:
    """Make the shards of a cut once, in ``home``: the workers take them from the cache."""
    named = " ".join(f"{key}={value}" for key, value in cut) or "of the recipe"
    say(f"[ablate] shards {named}")
    clean(home)
    change_params(home / "params.yaml", cut)
    try:
        for stage in SHARED:
            dvc.repro(stage, root=home, lock=lock, on_line=lambda line: None)
    finally:
        clean(home)


def change_params(path: Path, changes: Sequence[tuple[str, Any]]) -> None:
    """Set ``section.key`` of a params file to values."""
    yaml = YAML(typ="rt")
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes:
        section, name = key.split(".")
        tree[section][name] = value
    with atomic_write(path, "w") as file:
        yaml.dump(tree, file)


def clean(folder: Path) -> None:
    """Undo the traces of an experiment, killed or not: outputs stay, files of git become the commit's."""
    git(folder, "reset", "--quiet", "--hard", "HEAD")


def _work(home: Path, number: int, board: _Board) -> None:
    """One worker: its own workspace, cell after cell."""
    folder = home.with_name(f"{home.name}-{number}")
    while (cell := board.take()) is not None:
        began = time.monotonic()
        try:
            _clone(home, folder)
            with hold(folder, "mirasol ablate", say=board.say) as lock:
                report = _run_cell(folder, cell, lock)
            with board.lock:
                _keep(home, folder, cell, report)
        except Exception as error:  # the others go on; the run ends with this one's message
            board.failed(cell, error)
        else:
            board.done(cell, time.monotonic() - began, report["accuracy"][Condition.unchanged])


def _clone(home: Path, folder: Path) -> None:
    """The worker's workspace at the commit of ``home``."""
    local = Path(".dvc", "config.local")
    if (folder / local).exists() and git(folder, "rev-parse", "HEAD") == git(home, "rev-parse", "HEAD"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    git(home, "clone", "--quiet", "--local", str(home), str(folder))
    shutil.copyfile(home / local, folder / local)  # last: the sign of a whole clone


def _run_cell(folder: Path, cell: Cell, lock: Lock) -> dict[str, Any]:
    """Run the cell as an experiment of the worker's workspace, with the output of its commands in runs/CELL.log."""
    clean(folder)
    for line in git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines():
        if line.endswith(f"/{cell.name}"):  # of a run that was killed before its result was kept
            git(folder, "update-ref", "-d", line)
    began = time.monotonic()
    log = folder / "runs" / f"{cell.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:

        def write(line: str) -> None:
            print(line, file=file, flush=True)

        if not (folder / "data").exists():
            dvc.call(folder, "checkout", "data.dvc", on_line=write, lock=lock)
        dvc.exp_run(cell.name, cell.settings, root=folder, lock=lock, on_line=write)
    report: dict[str, Any] = json.loads((folder / "reports" / "cell.json").read_text(encoding="utf-8"))
    return report | {"commit": git(folder, "rev-parse", "HEAD"), "wall": round(time.monotonic() - began)}


def _keep(home: Path, folder: Path, cell: Cell, report: dict[str, Any]) -> None:
    """Keep a cell that has run: its outputs in CELLS, its experiment where `dvc exp show` lists it."""
    dvc.exp_fetch(home, folder, cell.name, on_line=lambda line: None)
    keep = home / CELLS / cell.name
    shutil.rmtree(keep, ignore_errors=True)
    shutil.copytree(folder / "build" / "cell", keep)
    write_json(keep / "cell.json", report)  # last: with it the cell is finished
