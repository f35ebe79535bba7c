"""A training that Prefect starts as a job of Slurm, and cancels."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from support.phase import FINETUNE_ALONE
from support.prefect_server import Prefect
from support.scratch import REPOSITORY, start_git, wait_until
from support.slurm import Slurm

PREFECT_YAML = """\
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $MIRASOL_HOME }}"
deployments:
  - name: slurm
    entrypoint: flows/pipeline.py:pipeline
    work_pool: {name: mirasol}
    parameters: {targets: [finetune], report: false}
"""


def prepare(root: Path) -> None:
    """Put a project before its finetuning under git and DVC, with many steps of training on two nodes of Slurm."""
    path = root / "params.yaml"
    path.write_text(re.sub(r"^  steps: .*", "  steps: 4000", path.read_text(), flags=re.MULTILINE))
    (root / "cluster.yaml").write_text("launcher: slurm\nnodes: 2\n")
    (root / "dvc.yaml").write_text(FINETUNE_ALONE)
    (root / "prefect.yaml").write_text(PREFECT_YAML)
    (root / "flows").symlink_to(REPOSITORY / "flows")
    (root / ".gitignore").write_text("/build/\n/runs/\n")
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    start_git(root)


def start(prefect: Prefect, root: Path) -> str:
    """`prefect deployment run` of the training; returns the run's id once its log holds lines of the job's training."""
    said = prefect.command("prefect", "deployment", "run", "pipeline/slurm", cwd=root)
    found = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert found, said
    run = found[1]

    def trains() -> bool:
        state = prefect.run(run)
        assert state["state_type"] in ("SCHEDULED", "PENDING", "RUNNING"), (state["state"], logged(prefect, run))
        return any(re.search(r"\] [\d,]+/[\d,]+ clips", line) for line in logged(prefect, run))

    wait_until("training of the job in the run's log", trains)
    return run


def logged(prefect: Prefect, run: str) -> list[str]:
    """The lines of a run's log."""
    found = prefect.read("/logs", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC", limit=200)
    return [entry["message"] for entry in found]


def cancel(prefect: Prefect, slurm: Slurm, root: Path, run: str) -> float:
    """`prefect flow-run cancel`; returns the seconds from the server's accepting it until `squeue` is empty.

    The command needs some seconds before: it imports Prefect.
    """
    assert slurm.jobs()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(prefect.command, "prefect", "flow-run", "cancel", run, cwd=root)
        slurm.wait(lambda: slurm.jobs() == "", "empty queue")
        empty = datetime.now(UTC)
        asked.result()
    states = prefect.api.get("/flow_run_states/", params={"flow_run_id": run}).raise_for_status().json()
    accepted = next(state["timestamp"] for state in states if state["type"] == "CANCELLING")
    return (empty - datetime.fromisoformat(accepted)).total_seconds()
