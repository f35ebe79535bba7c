"""From new files to a release, unattended: import, data version, training of what is stale, gate, release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.common import Workspace, command, lines
from flows.ingest import ingest
from flows.pipeline import pipeline
from flows.release import release
from mirasol.pipeline import incoming as arrivals
from mirasol.pipeline import release as releases
from mirasol.pipeline.dvc.command import git
from mirasol.pipeline.dvc.lock import hold


@task(task_run_name="look", cache_policy=NO_CACHE)
def look(root: Path, incoming: str) -> arrivals.Incoming:
    """List the incoming files; those behind a URL are copied first."""
    return arrivals.read_incoming(arrivals.local_copy(root, incoming, lines("incoming")))


@task(task_run_name="commit", cache_policy=NO_CACHE)
def commit(root: Path, message: str, push: bool) -> None:
    """Commit what the import or the stages wrote, and push the branch."""
    with hold(root, "commit", say=lines("commit")):
        if releases.commit_results(root, message):
            lines("commit")(git(root, "log", "-1", "--format=%h %s"))
        if push:
            git(root, "push", "--quiet", "origin", "HEAD")


@flow(name="loop")
def loop(
    incoming: Annotated[
        str, typer.Argument(help="the folder with annotations.csv, which lists all rows, and the media; or its URL")
    ] = "incoming",
    to: Annotated[str, typer.Option(help="the registry, relative to the workspace")] = "runs/releases",
    gates: Annotated[
        dict[str, float] | None,
        typer.Option(parser=json.loads, help='JSON: {"reports/FILE.json:dotted.key": how far it may fall}'),
    ] = None,
    settle: Annotated[float, typer.Option(help="seconds without a change until an upload counts as whole")] = 60.0,
    workspace: Workspace = ".",
    push: Annotated[bool, typer.Option("--push", help="`dvc push`, and branch and tag to git's origin")] = False,
    options: Annotated[
        list[str] | None, typer.Option("--import", help="a further option of the import, such as --skip-missing")
    ] = None,
) -> str:
    """Bring new files to a release: import, commit, train what is stale, evaluate, gate, publish.

    Made for a schedule: without a new file, and while files arrive, nothing happens. After an error the next run goes
    on. A model that a gate refuses is not published, the run fails and says why; more files start the next try.

    Example:  python -m flows.loop incoming --settle 300

    Returns:
        The release's name, or the reason why nothing was done.

    Raises:
        MirasolError: code or parameters are not committed, the files cannot be imported, a stage or a gate failed, or
            a push was refused.
    """
    root = Path(workspace).resolve()
    found = look(root, incoming)
    known, result = arrivals.finished(root)
    if found.annotations is None:
        return _said(f"nothing to import in {incoming}: {found.files} files, no {' or '.join(arrivals.ANNOTATIONS)}")
    if found.version == known:
        return _said(f"nothing new in {incoming} since: {result}")
    if found.age < settle:
        return _said(f"files are arriving in {incoming}: the last changed {found.age:.0f} s ago")
    releases.check_sources(root)  # before anything costly
    ingest(
        media=str(found.folder),
        annotations=str(found.annotations),
        options=options,
        workspace=str(root),
        push=push,
    )
    commit(root, f"Data: {found.files} incoming files", push)
    pipeline(workspace=str(root))
    commit(root, f"Results with {found.files} incoming files", push)
    tag = releases.released_as(root, to)
    if tag is None:
        try:
            tag = release(to=to, gates=gates, workspace=str(root), push=push)
        except releases.GateError as refusal:
            arrivals.finish(root, found, f"not released, {refusal}")
            raise
    else:
        get_run_logger().info("this bundle is released already, as %s", tag)
    arrivals.finish(root, found, f"released {tag}")
    return str(tag)


def _said(reason: str) -> str:
    get_run_logger().info(reason)
    return reason


if __name__ == "__main__":
    command(loop, lambda said, **options: str(said))(prog_name="python -m flows.loop")
