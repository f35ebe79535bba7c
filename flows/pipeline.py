"""The pipeline: one task run per stage of dvc.yaml, then the report.

    python -m flows.pipeline [STAGE…] [--push] [--workspace DIR]

Plain `dvc repro` gives the same files with no Prefect at all; this adds history, retries, schedules and
logs. The stages run one after another in this thread: they share one workspace, and an interrupt must
reach the one that runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import exit_status, worth_a_retry
from mirasol.pipeline import summary
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import mirasol
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.summary import StageResult


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, retry_condition_fn=worth_a_retry)
def run_stage(name: str, lock: Lock, reasons: list[str]) -> dvc.Outcome:
    """Bring one stage up to date; ``reasons`` say why it is stale, none that it is not."""
    log = get_run_logger()
    if not reasons:
        log.info("up to date")
        return "unchanged"
    log.info(summary.why(reasons))
    return dvc.repro(name, root=lock.root, lock=lock, on_line=log.info)


@task(task_run_name="report", cache_policy=NO_CACHE)
def write_report(lock: Lock) -> None:
    """build/report/index.html, from what the stages left."""
    mirasol(lock.root, "report", on_line=get_run_logger().info, lock=lock)


@task(task_run_name="push", cache_policy=NO_CACHE, retry_condition_fn=worth_a_retry)
def push_outputs(lock: Lock) -> None:
    """`dvc push` to the workspace's default remote."""
    dvc.push(lock.root, on_line=get_run_logger().info, lock=lock)


@flow(name="pipeline")
def pipeline(
    targets: list[str] | None = None,
    push: bool = False,
    workspace: str = ".",
    report: bool = True,
    retries: int = 1,
    retry_delay: float = 10.0,
    lock_wait: float = 600.0,
) -> dict[str, str]:
    """Bring the workspace's stages up to date. What shapes a result is in params.yaml, not here.

    Args:
        targets: stages to bring up to date, with all they depend on; all stages if none are named.
        push: send the outputs to the default DVC remote afterwards.
        workspace: the project's folder, or one made by `mirasol workspace`.
        report: write build/report/index.html at the end (never for named targets).
        retries: further tries for a stage that the machine ended (killed, lock busy), and for the push.
        retry_delay: seconds between them.
        lock_wait: seconds to wait for another run in this workspace, 0 fails at once.

    Returns:
        What became of each stage: `ran`, `restored` from the run cache, or `unchanged`.

    Raises:
        MirasolError: dvc.yaml cannot be read, a target is unknown, or the workspace is in use.
        StageError: a stage failed; the text is the stage's own.
    """
    log = get_run_logger()
    root = Path(workspace).resolve()
    stages = dvc.read_stages(root / "dvc.yaml")
    wanted = dvc.select(stages, targets)
    patience: dict[str, Any] = {"retries": retries, "retry_delay_seconds": retry_delay}
    results: list[StageResult] = []
    with hold(root, "pipeline", wait=lock_wait, say=log.info) as lock:
        stale = dvc.status(root)
        # As `dvc repro` does: data that was changed by hand is recorded before the stages read it.
        for name in [name for name in stale if name.endswith(".dvc")] + [s.name for s in wanted]:
            reasons = list(stale.get(name, ()))
            changed = {r.name for r in results if r.outcome != "unchanged"}
            if not reasons and name in dvc.downstream(stages, changed):
                reasons = ["a stage before it ran"]
            start = time.monotonic()
            outcome = run_stage.with_options(**patience)(name, lock, reasons)
            results.append(StageResult(name, outcome, time.monotonic() - start))
        if report and not targets:
            write_report(lock)
        if push:
            push_outputs.with_options(**patience)(lock)
        now, before = dvc.metrics(root, wanted), dvc.metrics(root, wanted, rev="HEAD")
    create_markdown_artifact(
        key="metrics", markdown=summary.markdown(results, now, before), description=f"pipeline in {root}"
    )
    return {r.name: r.outcome for r in results}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the pipeline's stages.")
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to bring up to date; all by default")
    parser.add_argument("--push", action="store_true", help="`dvc push` afterwards")
    parser.add_argument("--workspace", default=".", metavar="DIR", help="the project's folder (default: this one)")
    parser.add_argument("--no-report", dest="report", action="store_false", help="leave the report out")
    parser.add_argument("--retries", type=int, default=1, help="tries more when the machine ended a stage (1)")
    parser.add_argument("--retry-delay", type=float, default=10.0, metavar="SECONDS", help="between tries (10)")
    parser.add_argument("--lock-wait", type=float, default=600.0, metavar="SECONDS", help="for another run (600)")
    options = vars(parser.parse_args(arguments))
    options["targets"] = options["targets"] or None
    return exit_status(lambda: ", ".join(f"{name} {how}" for name, how in pipeline(**options).items()))


if __name__ == "__main__":
    sys.exit(main())
