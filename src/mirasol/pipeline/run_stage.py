"""Run one stage: check its parameters, leave its error where a flow finds it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, write_json
from mirasol.pipeline.params.errors import nearest
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.stages import STAGES

Stage = Callable[[Params], None]


def run_stage(name: str, main: Stage | None = None) -> None:
    """Run stage ``name`` of dvc.yaml in the current folder, or ``main`` as a stage of another pipeline.

    On failure ``runs/<stage>/error.json`` holds ``{"stage", "type", "error"}`` of this run; an older one is removed
    at the start. SIGTERM ends the stage with status 143 after its clean-up.

    Raises:
        MirasolError: an error that the user can fix; also for a disk that cannot be written.
    """
    if main is None and name not in STAGES:
        guess = nearest(name, STAGES)
        hint = f"did you mean `{guess}`?" if guess else f"expected one of {', '.join(STAGES)}"
        raise MirasolError(f"unknown stage `{name}`: {hint}")
    report = Path("runs", name, "error.json")
    try:
        with _unwind_on_sigterm():
            report.unlink(missing_ok=True)
            (main or STAGES[name])(load_params())
    except Exception as error:
        shown = disk_error(error, Path(error.filename or ".")) if isinstance(error, OSError) else None
        failure = shown or error
        with contextlib.suppress(OSError, MirasolError):  # a full disk must not hide the error itself
            text = str(failure) if isinstance(failure, MirasolError) else f"{type(error).__name__}: {error}"
            write_json(report, {"stage": name, "type": type(error).__name__, "error": text})
        if shown is not None:
            raise shown from error
        raise


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
    finally:
        signal.signal(signal.SIGTERM, before)
