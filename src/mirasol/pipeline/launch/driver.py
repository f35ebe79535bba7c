"""`mirasol stage NAME`: a stage runs where cluster.yaml says, without a word there in this process.

The driver is the process that DVC started: it starts the others, passes their lines on, and ends with the error and
the exit status of the stage. Each of the others runs `mirasol stage NAME` too and knows itself as one by the
environment: torchrun's in a phase, the driver's mark in another stage.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from mirasol.core.errors import MirasolError, PeerError
from mirasol.data.storage import RUNS
from mirasol.pipeline.launch import local, slurm
from mirasol.pipeline.launch.agent import MARK, other_folder
from mirasol.pipeline.launch.config import load_cluster
from mirasol.pipeline.launch.lines import Lines
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.run_stage import first_cause, run_stage
from mirasol.pipeline.stages import STAGES
from mirasol.training.config import PhaseConfig, check_processes, is_rank

USER = 2  # exit status after an error that the command line prints


def run(name: str) -> None:
    """Run stage ``name`` of dvc.yaml in the current folder.

    Raises:
        MirasolError: an error that the user can fix, of the stage, of cluster.yaml, or of the cluster.
        SystemExit: the processes of a phase ended otherwise; the status is that of the first.
    """
    if name in PHASES and (url := load_cluster().at(name).storage):
        os.environ.setdefault(RUNS, url)
    if is_rank() or name not in STAGES:
        run_stage(name)
    elif mark := os.environ.pop(MARK, ""):
        if wrong := other_folder(mark):
            raise MirasolError(wrong)
        run_stage(name)
    else:
        run_stage(name, functools.partial(train if name in PHASES else work, name))


def work(name: str, params: Params) -> None:
    """Run stage ``name``, which is no phase: here, or as a job of one process."""
    cluster = load_cluster().at(name)
    if cluster.launcher == "local":
        STAGES[name](params)
        return
    lines = Lines()
    if status := slurm.run(name, cluster, lines):
        _fail(name, status, lines)


def train(name: str, params: Params) -> None:
    """Train phase ``name`` in the processes that cluster.yaml asks for."""
    phase: PhaseConfig = getattr(params, name)
    cluster = load_cluster().at(name).filled(phase.batch_size, params.training)
    if (copies := int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))) > 1:
        raise MirasolError(
            f"srun started {copies} copies of `mirasol stage {name}`, and each would write the same files: start it "
            "once, and say in cluster.yaml by how many processes it trains (`mirasol cluster check`)"
        )
    check_processes(name, phase, params.training, cluster.processes)
    if not cluster.launches:
        STAGES[name](params)
        return
    lines = Lines()
    status = (slurm if cluster.launcher == "slurm" else local).run(name, cluster, lines)
    if status:
        _fail(name, status, lines)


def _fail(name: str, status: int, lines: Lines) -> None:
    """Leave with the phase's own error, or with the status of its processes."""
    cause = first_cause(Path("runs", name))
    # srun gives the highest status: a crash, whose lines tell more, stands behind it where the text begins by its type
    if status == USER and cause is not None and not cause["error"].startswith(f"{cause['type']}:"):
        raise PeerError(cause["error"], transient=cause["transient"])
    lines.release()
    raise SystemExit(status)
