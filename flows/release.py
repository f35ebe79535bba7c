"""A release: gate against the released model, tag, copy the bundle.

python -m flows.release [--to DIR] [--push]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import exit_status
from mirasol.pipeline import release as room
from mirasol.pipeline.dvc.lock import Lock, hold

GATES = {"reports/eval.json:overall.exact_match": 0.01}


@task(task_run_name="gate", cache_policy=NO_CACHE)
def gate(lock: Lock, gates: dict[str, float]) -> list[room.Verdict]:
    """The commit is complete and up to date; its metrics stand beside the released model's."""
    room.check_state(lock.root)
    verdicts = room.judge(lock.root, gates)
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
def publish(lock: Lock, to: str, verdicts: list[room.Verdict], push: bool) -> str:
    """Tag and bundle, together or not at all."""
    return room.publish(lock.root, to, verdicts, lock=lock, push=push, say=get_run_logger().info)


@flow(name="release")
def release(
    to: str = "runs/releases",
    gates: dict[str, float] | None = None,
    workspace: str = ".",
    push: bool = False,
    lock_wait: float = 600.0,
) -> str:
    """Release the model of the current commit if no gated metric is worse than the released model's.

    Args:
        to: where the folder `model-N` goes; relative to the workspace.
        gates: `reports/FILE.json:dotted.key` -> how far it may fall; the overall exact match, by 0.01, if ``None``.
        workspace: the project's folder.
        push: `dvc push`, and the tag to git's `origin`.
        lock_wait: seconds to wait for another run in this workspace.

    Returns:
        The tag, `model-N`.

    Raises:
        MirasolError: files are not committed, stages are stale, a gate failed, or the bundle cannot be written.
    """
    root = Path(workspace).resolve()
    with hold(root, "release", wait=lock_wait, say=get_run_logger().info) as lock:
        return publish(lock, to, gate(lock, GATES if gates is None else gates), push)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.release", description="Gate, tag and publish the model.")
    parser.add_argument("--to", default="runs/releases", metavar="DIR", help="where model-N goes (runs/releases)")
    parser.add_argument("--workspace", default=".", metavar="DIR", help="the project's folder (default: this one)")
    parser.add_argument("--push", action="store_true", help="`dvc push`, and the tag to git's origin")
    options = vars(parser.parse_args(arguments))
    return exit_status(lambda: release(**options))


if __name__ == "__main__":
    sys.exit(main())
