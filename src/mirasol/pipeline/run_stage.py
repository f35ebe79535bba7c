"""Run one stage: check its parameters, leave its error where a flow finds it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mirasol.core.errors import MirasolError, PeerError, is_secondary, text_of
from mirasol.core.files import disk_error, write_json
from mirasol.pipeline.params.errors import nearest
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.stages import STAGES

Stage = Callable[[Params], None]
REPORT = "error.json"  # in runs/<stage>: the first cause
ERRORS = "errors"  # folder there: rank-<n>.json of each process that failed
EARLIER = 60.0  # seconds: the processes of one run start within them


def run_stage(name: str, main: Stage | None = None) -> None:
    """Run stage ``name`` of dvc.yaml in the current folder, or ``main`` as a stage of another pipeline.

    Each process that fails leaves ``runs/<stage>/errors/rank-<n>.json``, and the first one :func:`first_cause` of
    them in ``runs/<stage>/error.json``; those of earlier runs are removed at the start. SIGTERM ends the stage with
    status 143 after its clean-up.

    Raises:
        MirasolError: an error that the user can fix; also for a disk that cannot be written.
    """
    if main is None and name not in STAGES:
        guess = nearest(name, STAGES)
        hint = f"did you mean `{guess}`?" if guess else f"expected one of {', '.join(STAGES)}"
        raise MirasolError(f"unknown stage `{name}`: {hint}")
    folder, (rank, world) = Path("runs", name), place_of_process()
    try:
        with _unwind_on_sigterm():
            _remove_earlier(folder, rank, world)
            (main or STAGES[name])(load_params())
    except Exception as error:
        shown = disk_error(error, Path(error.filename or ".")) if isinstance(error, OSError) else None
        with contextlib.suppress(OSError, MirasolError):  # a full disk must not hide the error itself
            _record(folder, name, shown or error, type(error).__name__)
            _report(folder, rank)
        if shown is not None:
            raise shown from error
        raise
    except SystemExit:  # told to stop, often because another process failed
        with contextlib.suppress(OSError, MirasolError):
            _report(folder, rank)
        raise


def place_of_process() -> tuple[int, int]:
    """The rank of this process and the number of them, by torchrun's variables; 0 and 1 without."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def first_cause(folder: str | Path) -> dict[str, Any] | None:
    """The first error by time that the processes of a stage left in ``folder``, ``runs/<stage>``; ``None`` without.

    An error of the user comes before the machine's: a process whose neighbour has failed sees a broken connection,
    and may report it first.

    Returns:
        ``stage``, ``type``, ``error`` (text), ``rank``, ``host``, ``time`` (seconds since 1970), ``processes``, and
        ``transient``: the machine's fault (killed, stopped, unreachable), so worth another try.
    """
    found = list(_records(Path(folder)).values())

    def order(record: dict[str, Any]) -> tuple[bool, bool, float]:
        return record["transient"], record.get("type") == PeerError.__name__, record["time"]

    return min(found, key=order, default=None)


def _records(folder: Path) -> dict[Path, dict[str, Any]]:
    """The complete error files in ``folder``."""
    found = {}
    for path in sorted((folder / ERRORS).glob("rank-*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            _ = bool(record["transient"]), float(record["time"]), str(record["error"])
            found[path] = record
    return found


def _path(folder: Path, rank: int) -> Path:
    return folder / ERRORS / f"rank-{rank}.json"


def _remove_earlier(folder: Path, rank: int, world: int) -> None:
    """Remove the reports of earlier runs.

    Another process of this run may have failed already, so each removes its own, and the first one those that none
    of this run can have written.
    """
    _path(folder, rank).unlink(missing_ok=True)
    if rank:
        return
    (folder / REPORT).unlink(missing_ok=True)
    ours = {_path(folder, number) for number in range(1, world)}
    for path in (folder / ERRORS).glob("rank-*.json"):
        with contextlib.suppress(FileNotFoundError):  # just removed by its process
            if path not in ours or path.stat().st_mtime < time.time() - EARLIER:
                path.unlink()


def _record(folder: Path, stage: str, error: Exception, kind: str) -> None:
    """Write the error of this process, and those that others told it and could not write here."""
    rank, world = place_of_process()
    if "RANK" not in os.environ and _records(folder):
        return  # this process started the others, whose errors are here
    for cause in error.causes if isinstance(error, PeerError) else ():
        if not (path := _path(folder, cause["rank"])).exists():
            write_json(path, cause | {"stage": stage, "processes": world})
    secondary = world > 1 and is_secondary(error)
    transient = bool(getattr(error, "transient", secondary))
    write_json(
        _path(folder, rank),
        {
            "stage": stage, "type": kind, "error": text_of(error), "rank": rank, "host": platform.node(),
            "time": time.time(), "processes": world, "transient": transient,
        },
    )  # fmt: skip


def _report(folder: Path, rank: int) -> None:
    """Write the first cause where flows read it; one process does."""
    if rank == 0 and (cause := first_cause(folder)) is not None:
        write_json(folder / REPORT, cause)


@contextlib.contextmanager
def _unwind_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit(143)``, so that temporary files and child processes are cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit:  # a second SIGTERM must not end the process before its status
        before = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
