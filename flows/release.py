"""A release: gate against the released model, tag, copy the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import LockWait, Workspace, command
from mirasol.pipeline import release as releases
from mirasol.pipeline.dvc.lock import Lock, hold

GATES = {"reports/eval.json:overall.exact_match": 0.01}


@task(task_run_name="gate", cache_policy=NO_CACHE)
def gate(lock: Lock, gates: dict[str, float], to: str) -> list[releases.Verdict]:
    """Check that the commit is complete and up to date, and compare its metrics with the current release's."""
    releases.check_state(lock.root)
    verdicts = releases.judge(lock.root, gates, to)
    for verdict in verdicts:
        get_run_logger().info("%s: %s", "pass" if verdict.passed else "FAIL", verdict)
    create_table_artifact(
        key="gates",
        table=[
            {"metric": v.metric, "value": v.value, "released": v.released, "may fall by": v.allowed, "passed": v.passed}
            for v in verdicts
        ],
    )
    return verdicts


@task(task_run_name="publish", cache_policy=NO_CACHE)
def publish(lock: Lock, to: str, verdicts: list[releases.Verdict], push: bool) -> str:
    """Publish tag and bundle, together or not at all."""
    return releases.publish(lock.root, to, verdicts, lock=lock, push=push, say=get_run_logger().info)


@flow(name="release")
def release(
    to: Annotated[str, typer.Option(help="the registry, relative to the workspace")] = "runs/releases",
    gates: Annotated[
        dict[str, float] | None,
        typer.Option(parser=json.loads, help='JSON: {"reports/FILE.json:dotted.key": how far it may fall}'),
    ] = None,
    workspace: Workspace = ".",
    push: Annotated[bool, typer.Option("--push", help="`dvc push`, and the tag to git's origin")] = False,
    lock_wait: LockWait = 600.0,
) -> str:
    """Release the model of the current commit if no gated metric is worse than the current release's.

    Without --gates the overall exact match is gated: it may fall by 0.01.

    Example:  python -m flows.release --to ~/models --push

    Returns:
        The tag, `model-N`.

    Raises:
        MirasolError: files are not committed, stages are stale, a gate failed, or the bundle cannot be written.
    """
    root = Path(workspace).resolve()
    with hold(root, "release", wait=lock_wait, say=get_run_logger().info) as lock:
        return publish(lock, to, gate(lock, GATES if gates is None else gates, to), push)


if __name__ == "__main__":
    command(release, lambda tag, **options: str(tag))(prog_name="python -m flows.release")
