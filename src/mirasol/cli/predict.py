"""`mirasol predict`: answers about many files, in a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mirasol.cli.console import Json, counted, note, print_json, takes
from mirasol.cli.serve import BUNDLE, Bundle, Provider

app = typer.Typer()
SHOWN = 10  # unreadable files in the summary


@dataclass(frozen=True)
class Predict:
    """Arguments and options of `mirasol predict`."""

    source: Annotated[
        Path, typer.Argument(help="a folder of media files, or a .csv with the columns file and question")
    ]
    out: Annotated[Path, typer.Option(help="the table to write, or to continue")]
    ask: Annotated[list[str] | None, typer.Option(help="a question about each file; repeatable")] = None
    join: Annotated[bool, typer.Option("--join", help="the folder's files are one stream, in the order of names")] = (
        False
    )
    bundle: Bundle = BUNDLE
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes of one CPU thread; default: one for each core, on a GPU one")
    ] = None
    provider: Provider = "auto"
    as_json: Json = False


@app.command()
@takes(Predict)
def predict(given: Predict) -> None:
    """Answer questions about every file of a folder or a CSV, without PyTorch.

    Columns: file, question, answer, score (probability of the answer), margin (of its least certain token over the
    second best), seconds_used, flag. The same command again continues an interrupted table, and asks about files with
    the flag "unreadable" again.

    Example:  mirasol predict videos/ --ask 'which sound is heard first?' --out answers.csv
    """
    from mirasol.runtime.predict import Loading, tasks_of
    from mirasol.runtime.predict import predict as run_predict

    tasks = tasks_of(given.source, given.ask or [], join=given.join)
    loading = Loading(str(given.bundle), provider=given.provider, join=given.join)
    summary = run_predict(tasks, given.out, loading, workers=given.workers)
    if given.as_json:
        print_json(summary | {"out": str(given.out)})
    else:
        _print(summary, given.out)


def _print(summary: dict[str, Any], out: Path) -> None:
    reused = f", {summary['reused']:,} of them from before" if summary["reused"] else ""
    note(f"{counted(summary['answers'], 'answer')} about {counted(summary['files'], 'file')}{reused}")
    for name, count in summary["flags"].items():
        note(f"{name}: {count:,}")
    if bad := summary["unreadable"]:
        note(f"unreadable: {counted(len(bad), 'file')}; the same command asks about them again")
        for name, why in list(bad.items())[:SHOWN]:
            note(f"  {name}: {why}")
        if len(bad) > SHOWN:
            note(f"  … and {len(bad) - SHOWN} more: see the column flag")
    print(out)
