"""What the flows share: errors without tracebacks, and a command line of their own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from flows.server import ensure_server
from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.dvc import StageError


class _PlainErrors(logging.Filter):
    """Prefect logs every exception with its traceback; one that a user can mend says all in its text."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], MirasolError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_PlainErrors())


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Only what the machine did wrong: a stage that reported its own error would report it again."""
    return isinstance(state.data, StageError) and state.data.transient


def exit_status(call: Callable[[], str]) -> int:
    """Print what ``call`` returns, run with a Prefect server; 0, or 2 after an error that the user can mend."""
    try:
        ensure_server()
        print(call())
    except MirasolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run again to go on where this run stopped", file=sys.stderr)
        return 130
    return 0
