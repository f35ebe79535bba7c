"""Shared by the flows: errors without tracebacks, and a command line."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer
from prefect import Flow, get_run_logger

from flows.server import ensure_server
from mirasol.cli.console import Json, error, note, print_json
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
for _name in ("EventsWorker", "APILogWorker"):  # at its end Prefect waits for them, and would say so behind our error
    logging.getLogger(_name).setLevel(logging.ERROR)


class _OurLines(logging.Filter):
    """Prefect's own lines about states stay out of the terminal: our command prints the error, once, at the end."""

    OTHERS = ("Beginning flow run", "Finished in state", "Task run failed", "Encountered exception", "Crash detected")

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name.startswith("prefect.") and str(record.msg).startswith(self.OTHERS))


def lines(label: str) -> Callable[[str], None]:
    """Logs lines of the current flow or task run, each behind ``[label]``."""
    log = get_run_logger()
    return lambda text: log.info("[%s] %s", label, text)


def worth_a_retry(_task: Any, run: Any, state: Any) -> bool:
    """Only the machine's faults: a stage that reported its own error would report it again.

    Prefect asks only while tries are left.
    """
    again = isinstance(state.data, StageError) and state.data.transient
    if again:
        get_run_logger().warning("[%s] %s; it is tried again", run.name, str(state.data).partition(":\n")[0])
    return again


def command(
    flow: Flow[..., Any], done: Callable[..., str], facts: Callable[..., dict[str, Any]] | None = None
) -> typer.Typer:
    """The flow as a command line: its parameters, annotated for Typer, are the arguments and options.

    The help is the docstring up to `Returns` or `Raises`.

    Args:
        done: from the flow's result and its parameters, the text to print.
        facts: from the same, the object of `--json`; by default the text as `result`.
    """
    app = typer.Typer(
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def run(as_json: bool, **options: Any) -> None:
        def call() -> None:
            result = flow(**options)
            if as_json:
                print_json(facts(result, **options) if facts else {"result": done(result, **options)})
            else:
                print(done(result, **options))

        raise typer.Exit(exit_status(call))

    ours = inspect.signature(flow.fn, eval_str=True)
    last = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    run.__annotations__ = inspect.get_annotations(flow.fn, eval_str=True) | {"as_json": Json, "return": None}
    run.__signature__ = ours.replace(parameters=[*ours.parameters.values(), last])  # type: ignore[attr-defined]
    text = inspect.getdoc(flow.fn) or ""
    app.command(help=text.partition("\n\nReturns:")[0].partition("\n\nRaises:")[0])(run)
    return app


def exit_status(call: Callable[[], None]) -> int:
    """Run ``call`` with a Prefect server; 0, or 2 after an error that the user can fix, printed once."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_OurLines())
    try:
        ensure_server()
        call()
    except MirasolError as fault:
        error(str(fault))
        return 2
    except KeyboardInterrupt:
        note("interrupted: run again to go on where this run stopped")
        return 130
    return 0
