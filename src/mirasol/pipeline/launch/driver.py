"""`mirasol stage NAME`: a training phase runs where cluster.yaml says, every other stage in this process.

The driver is the process that DVC started: it starts the others, passes their lines on, and ends with the error and
the exit status of the stage. Each of the others runs `mirasol stage NAME` too and knows itself as one by torchrun's
environment.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from mirasol.core.errors import MirasolError, PeerError
from mirasol.pipeline.launch import local, slurm
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
    elsewhere = name in PHASES and not is_rank()
    run_stage(name, functools.partial(train, name) if elsewhere else None)


def train(name: str, params: Params) -> None:
    """Train phase ``name`` in the processes that cluster.yaml asks for."""
    phase: PhaseConfig = getattr(params, name)
    cluster = load_cluster().filled(phase.batch_size, params.training)
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
