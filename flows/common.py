"""Shared by the flows: errors without tracebacks, and a command line."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from prefect import Flow

from flows.server import ensure_server
from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.dvc import StageError

Workspace = Annotated[str, typer.Option(help="the project's folder, or one of `mirasol workspace`")]
LockWait = Annotated[float, typer.Option(help="seconds to wait for another run in this folder, 0: fail at once")]


class _PlainErrors(logging.Filter):
    """Prefect logs every exception with its traceback; the text of one that the user can fix is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], MirasolError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_PlainErrors())


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Only the machine's faults: a stage that reported its own error would report it again."""
    return isinstance(state.data, StageError) and state.data.transient


def command(flow: Flow[..., Any], done: Callable[..., str]) -> typer.Typer:
    """The flow as a command line: its parameters, annotated for Typer, are the arguments and options.

    The help is the docstring up to `Returns` or `Raises`.

    Args:
        done: from the flow's result and its parameters, the text to print.
    """
    app = typer.Typer(
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def run(**options: Any) -> None:
        raise typer.Exit(exit_status(lambda: done(flow(**options), **options)))

    run.__annotations__ = inspect.get_annotations(flow.fn, eval_str=True) | {"return": None}
    run.__signature__ = inspect.signature(flow.fn, eval_str=True)  # type: ignore[attr-defined]
    text = inspect.getdoc(flow.fn) or ""
    app.command(help=text.partition("\n\nReturns:")[0].partition("\n\nRaises:")[0])(run)
    return app


def exit_status(call: Callable[[], str]) -> int:
    """Print the result of ``call``, run with a Prefect server; 0, or 2 after an error that the user can fix."""
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
