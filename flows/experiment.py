"""An experiment: changed parameters in a workspace of its own, the result among `dvc exp show`.

python -m flows.experiment NAME finetune.lr=5e-4 [KEY=VALUE…]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import exit_status
from mirasol.pipeline import summary
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.lock import Lock, hold
from mirasol.pipeline.workspace import make_workspace


@task(task_run_name="workspace", cache_policy=NO_CACHE)
def prepare(root: Path, name: str) -> Path:
    """A clone of the project's last commit that shares its cache."""
    return make_workspace(f"exp-{name}", root=root, say=get_run_logger().info)


@task(task_run_name="dvc exp run", cache_policy=NO_CACHE)
def run_experiment(lock: Lock, name: str, changes: list[str]) -> dvc.Outcome:
    """All stages, with the changed parameters."""
    return dvc.exp_run(name, changes, root=lock.root, lock=lock, on_line=get_run_logger().info)


@flow(name="experiment")
def experiment(name: str, changes: list[str], workspace: str = ".", lock_wait: float = 600.0) -> dict[str, Any]:
    """Run the pipeline with ``changes`` without touching the project's folder. Several may run at once.

    Args:
        name: the experiment's name in `dvc exp show`; a run of the same name replaces it.
        changes: `key=value` of params.yaml, as in `dvc exp run --set-param`.
        workspace: the project's folder; the experiment starts from its last commit.
        lock_wait: seconds to wait for another run of the same name.

    Returns:
        The metrics files, path -> content.

    Raises:
        MirasolError: there is no commit, a key is unknown, or a stage failed.
    """
    log = get_run_logger()
    root = Path(workspace).resolve()
    folder = prepare(root, name)
    with hold(folder, f"experiment {name}", wait=lock_wait, say=log.info) as lock:
        run_experiment(lock, name, changes)
        stages = dvc.read_stages(folder / "dvc.yaml")
        now, before = dvc.metrics(folder, stages), dvc.metrics(folder, stages, rev="HEAD")
    dvc.exp_fetch(root, folder, name, on_line=log.info)
    create_markdown_artifact(
        key="experiment", markdown=summary.markdown([], now, before), description=f"{name}: {', '.join(changes)}"
    )
    return now


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.experiment", description="Run an experiment on the side.")
    parser.add_argument("name", help="its name in `dvc exp show`")
    parser.add_argument("changes", nargs="+", metavar="KEY=VALUE", help="what it changes in params.yaml")
    parser.add_argument("--workspace", default=".", metavar="DIR", help="the project's folder (default: this one)")
    options = vars(parser.parse_args(arguments))

    def call() -> str:
        experiment(**options)
        return f"kept as experiment {options['name']}: dvc exp show, dvc exp apply {options['name']}"

    return exit_status(call)


if __name__ == "__main__":
    sys.exit(main())
