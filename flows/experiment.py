"""An experiment: changed parameters in a separate workspace, listed by `dvc exp show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import LockWait, Workspace, command, lines
from mirasol.pipeline import summary
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.workspace import make_workspace


@task(task_run_name="workspace", cache_policy=NO_CACHE)
def prepare(root: Path, name: str) -> Path:
    """A clone of the project's last commit that shares its cache."""
    return make_workspace(f"exp-{name}", root=root, say=lines("workspace"))


@task(task_run_name="dvc exp run", cache_policy=NO_CACHE)
def run_experiment(lock: Lock, name: str, changes: list[str]) -> dvc.Outcome:
    """All stages, with the changed parameters."""
    return dvc.exp_run(name, changes, root=lock.root, lock=lock, on_line=lines("experiment"))


@flow(name="experiment")
def experiment(
    name: Annotated[str, typer.Argument(help="its name in `dvc exp show`; a run of the same name replaces it")],
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="changes to params.yaml")],
    workspace: Workspace = ".",
    lock_wait: LockWait = 600.0,
) -> dict[str, Any]:
    """Run the pipeline with changed parameters, without touching the project's folder.

    The experiment starts from the project's last commit. Several may run at once.

    Example:  python -m flows.experiment lower finetune.lr=5e-4

    Returns:
        The metrics files, path -> content.

    Raises:
        MirasolError: the project has no commit, a key is unknown, or a stage failed.
    """
    root = Path(workspace).resolve()
    dvc.check_changes(root / "params.yaml", changes)
    folder = prepare(root, name)
    with hold(folder, f"experiment {name}", wait=lock_wait, say=lines("experiment")) as lock:
        run_experiment(lock, name, changes)
        stages = dvc.read_stages(folder / "dvc.yaml")
        now, before = dvc.metrics(folder, stages), dvc.metrics(folder, stages, rev="HEAD")
    dvc.exp_fetch(root, folder, name, on_line=lines("experiment"))
    create_markdown_artifact(
        key="experiment", markdown=summary.markdown([], now, before), description=f"{name}: {', '.join(changes)}"
    )
    return now


def _done(_: dict[str, Any], name: str, **others: Any) -> str:
    return f"kept as experiment {name}: dvc exp show, dvc exp apply {name}"


if __name__ == "__main__":
    command(experiment, _done)(prog_name="python -m flows.experiment")
