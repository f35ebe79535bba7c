"""New data: import them, put them under DVC, and train the dependent models again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import Workspace, command, lines, worth_a_retry
from flows.pipeline import pipeline
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import mirasol
from mirasol.pipeline.dvc.lock import Lock, hold


@task(task_run_name="import", cache_policy=NO_CACHE)
def import_data(lock: Lock, adapter: str, annotations: str | None, media: str, options: list[str]) -> None:
    """`mirasol data import`: annotations list all data; existing files are not copied again."""
    listed = ["--annotations", str(Path(annotations).resolve())] if annotations else []
    arguments = ["data", "import", adapter, *listed, "--media", str(Path(media).resolve()), "--out", "data"]
    mirasol(lock.root, *arguments, *options, on_line=lines("import"), lock=lock)


@task(task_run_name="add", cache_policy=NO_CACHE)
def add_data(lock: Lock) -> None:
    """`dvc add data`: data.dvc names the new version."""
    dvc.call(lock.root, "add", "data", on_line=lines("add"), lock=lock)


@task(task_run_name="push", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
def push_data(lock: Lock) -> None:
    """`dvc push` to the default remote."""
    dvc.push(lock.root, on_line=lines("push"), lock=lock)


@flow(name="ingest")
def ingest(
    media: Annotated[str, typer.Option(help="the folder that the annotations' paths start from")],
    annotations: Annotated[
        str | None,
        typer.Option(help="the whole annotation file, old rows and new, or the folder of a published set's files"),
    ] = None,
    adapter: Annotated[str, typer.Option(help="any NAME of `mirasol data import`")] = "generic",
    options: Annotated[
        list[str] | None, typer.Argument(metavar="OPTION", help="behind `--`: further options of the import")
    ] = None,
    workspace: Workspace = ".",
    push: Annotated[bool, typer.Option("--push", help="send the data to the default DVC remote")] = False,
    run: Annotated[bool, typer.Option("--run", help="run the pipeline afterwards")] = False,
) -> None:
    """Import annotations and media into data/ and give the result a version.

    With --run the pipeline then brings the dependent stages up to date.

    Example:  python -m flows.ingest --annotations new.csv --media ~/videos --run -- --skip-missing

    Raises:
        MirasolError: the data cannot be imported (the old manifest stays), or a stage failed.
    """
    with hold(workspace, "ingest", say=lines("ingest")) as lock:
        import_data(lock, adapter, annotations, media, options or [])
        add_data(lock)
        if push:
            push_data(lock)
    if run:
        pipeline(workspace=workspace, push=push)


def _done(_: None, **options: Any) -> str:
    return "data/ has a new version: commit data.dvc"


if __name__ == "__main__":
    command(ingest, _done)(prog_name="python -m flows.ingest")
