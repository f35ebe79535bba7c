"""New data: import it, put it under DVC, and train again what depends on it.

python -m flows.ingest --annotations FILE.csv --media DIR [--push] [--run] [-- --skip-missing ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.common import exit_status, worth_a_retry
from flows.pipeline import pipeline
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import mirasol
from mirasol.pipeline.dvc.lock import Lock, hold


@task(task_run_name="import", cache_policy=NO_CACHE)
def import_data(lock: Lock, adapter: str, annotations: str | None, media: str, options: list[str]) -> None:
    """`mirasol data import`: the annotations are the whole truth, files that are there are not copied again."""
    listed = ["--annotations", str(Path(annotations).resolve())] if annotations else []
    arguments = ["data", "import", adapter, *listed, "--media", str(Path(media).resolve()), "--out", "data"]
    mirasol(lock.root, *arguments, *options, on_line=get_run_logger().info, lock=lock)


@task(task_run_name="add", cache_policy=NO_CACHE)
def add_data(lock: Lock) -> None:
    """`dvc add data`: the new data gets a version, data.dvc names it."""
    dvc.add(lock.root, "data", on_line=get_run_logger().info, lock=lock)


@task(task_run_name="push", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
def push_data(lock: Lock) -> None:
    """`dvc push` to the default remote."""
    dvc.push(lock.root, on_line=get_run_logger().info, lock=lock)


@flow(name="ingest")
def ingest(
    media: str,
    annotations: str | None = None,
    adapter: str = "generic",
    options: list[str] | None = None,
    workspace: str = ".",
    push: bool = False,
    run: bool = False,
    lock_wait: float = 600.0,
) -> None:
    """Import annotations and media into data/ and give the result a version.

    Args:
        media: the folder that the annotations' paths start from.
        annotations: the whole annotation file, old rows and new, or the folder of a published set's own files; not for
            adapters that need none.
        adapter: `mirasol data import ADAPTER`.
        options: further ones of the import, such as ``--skip-missing``.
        workspace: the project's folder, or one made by `mirasol workspace`.
        push: send the data to the default DVC remote.
        run: run the pipeline afterwards: it redoes what depends on what changed.
        lock_wait: seconds to wait for another run in this workspace.

    Raises:
        MirasolError: the data cannot be imported (the old manifest stays), or a stage failed.
    """
    with hold(workspace, "ingest", wait=lock_wait, say=get_run_logger().info) as lock:
        import_data(lock, adapter, annotations, media, options or [])
        add_data(lock)
        if push:
            push_data(lock)
    if run:
        pipeline(workspace=workspace, push=push, lock_wait=lock_wait)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.ingest", description="Import data and version it.")
    parser.add_argument("--media", required=True, metavar="DIR", help="folder that the annotations' paths start from")
    parser.add_argument("--annotations", metavar="FILE", help="the whole .csv or .jsonl file, or a set's folder")
    parser.add_argument("--adapter", default="generic", help="any NAME of `mirasol data import` (generic)")
    parser.add_argument("--workspace", default=".", metavar="DIR", help="the project's folder (default: this one)")
    parser.add_argument("--push", action="store_true", help="`dvc push` afterwards")
    parser.add_argument("--run", action="store_true", help="run the pipeline afterwards")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="behind `--`: further options of the import")
    options = vars(parser.parse_args(arguments))

    def call() -> str:
        ingest(**options)
        return "data/ has a new version: commit data.dvc"

    return exit_status(call)


if __name__ == "__main__":
    sys.exit(main())
