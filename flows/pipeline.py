"""The pipeline: one task run per stage of dvc.yaml, then the report. `mirasol run` calls it.

Plain `dvc repro` gives the same files without Prefect; this adds history, retries, schedules and logs. The stages run
one after another in this thread: they share one workspace, and an interrupt must reach the running one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import LockWait, Workspace, command, lines, worth_a_retry
from flows.progress import StageProgress
from mirasol.core.errors import MirasolError
from mirasol.pipeline import summary
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.command import mirasol
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.launch.config import load_cluster
from mirasol.pipeline.outcome import outcome, screen
from mirasol.pipeline.run_log import RunLog
from mirasol.pipeline.summary import StageResult

DONE = {"ran": "done", "restored": "taken from the run cache", "unchanged": "up to date"}


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE, retry_condition_fn=worth_a_retry)
def run_stage(name: str, lock: Lock, reasons: list[str], log: RunLog) -> dvc.Outcome:
    """Bring one stage up to date; ``reasons`` say why it is stale. Without reasons it is not."""
    say = lines(log.place(name))
    if not reasons:
        say(DONE["unchanged"])
        return "unchanged"
    say(", ".join(filter(None, ("starts: " + summary.why(reasons), log.begins(name)))))
    progress = StageProgress(name)

    def on_line(line: str) -> None:
        text = log.line(name, line)
        say(text)
        progress.line(text)

    try:
        outcome = dvc.repro(name, root=lock.root, lock=lock, on_line=on_line)
    except MirasolError:
        progress.end()  # where the stage stopped
        raise
    progress.end()
    say(f"{DONE[outcome]} in {log.ends(name, ran=outcome == 'ran')}")
    return outcome


@task(task_run_name="report", cache_policy=NO_CACHE)
def write_report(lock: Lock) -> None:
    """Write build/report/index.html from the stages' results."""
    mirasol(lock.root, "report", on_line=lines("report"), lock=lock)


@task(task_run_name="push", cache_policy=NO_CACHE, retry_condition_fn=worth_a_retry)
def push_outputs(lock: Lock) -> None:
    """`dvc push` to the workspace's default remote."""
    dvc.push(lock.root, on_line=lines("push"), lock=lock)


@flow(name="pipeline")
def pipeline(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="STAGE", help="stages to bring up to date; default: all")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="send the results to the DVC remote afterwards")] = False,
    workspace: Workspace = ".",
    report: Annotated[bool, typer.Option(help="write build/report/index.html at the end, for all stages only")] = True,
    retries: Annotated[int, typer.Option(help="further tries for a stage that the machine ended, and the push")] = 1,
    retry_delay: Annotated[float, typer.Option(help="seconds between them")] = 10.0,
    lock_wait: LockWait = 600.0,
) -> dict[str, str]:
    """Bring the pipeline up to date through Prefect, as `make demo` does after the set-up.

    With a named stage, that stage and all that it depends on. params.yaml holds everything that shapes a result;
    options say where and how patiently. `python -m flows.pipeline` is the same.

    Example:  mirasol run evaluate

    Returns:
        The outcome of each stage: `ran`, `restored` from the run cache, or `unchanged`.

    Raises:
        MirasolError: dvc.yaml or cluster.yaml cannot be read, a target is unknown, or the workspace is in use.
        StageError: a stage failed; the text is the stage's own.
    """
    root = Path(workspace).resolve()
    load_cluster(root)  # a wrong cluster.yaml is refused before DVC deletes an output
    stages = dvc.read_stages(root / "dvc.yaml")
    wanted = dvc.select(stages, targets)
    patience: dict[str, Any] = {"retries": retries, "retry_delay_seconds": retry_delay}
    results: list[StageResult] = []
    with hold(root, "pipeline", wait=lock_wait, say=lines("pipeline")) as lock:
        stale = dvc.status(root)
        names = [s.name for s in wanted]
        log = RunLog(root, names, (stale.keys() | dvc.downstream(stages, stale)) & set(names))
        # As in `dvc repro`: data changed by hand get their version before the stages read them.
        for name in [name for name in stale if name.endswith(".dvc")] + names:
            reasons = list(stale.get(name, ()))
            changed = {r.name for r in results if r.outcome != "unchanged"}
            if not reasons and name in dvc.downstream(stages, changed):
                reasons = ["a stage before it ran"]
            start = time.monotonic()
            how = run_stage.with_options(**patience)(name, lock, reasons, log)
            results.append(StageResult(name, how, time.monotonic() - start))
        if report and not targets:
            write_report(lock)
        if push:
            push_outputs.with_options(**patience)(lock)
        now, before = dvc.metrics(root, wanted), dvc.metrics(root, wanted, rev="HEAD")
    create_markdown_artifact(
        key="metrics", markdown=summary.markdown(results, now, before), description=f"pipeline in {root}"
    )
    return {r.name: r.outcome for r in results}


BEGAN = time.monotonic()


def _facts(outcomes: dict[str, str], workspace: str, **_: Any) -> dict[str, Any]:
    return outcome(Path(workspace), outcomes, time.monotonic() - BEGAN)


def _done(outcomes: dict[str, str], **options: Any) -> str:
    return screen(_facts(outcomes, **options))


if __name__ == "__main__":
    command(pipeline, _done, _facts)(prog_name="mirasol run")
