"""Prefect cancels a training that it started as a job of Slurm: a real server, worker and cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cancel
from support.prefect_server import Prefect, prefect, working  # noqa: F401  (a fixture)
from support.scratch import wait_until
from support.slurm import Slurm

pytestmark = [pytest.mark.cluster]


@pytest.fixture
def deployed(
    prefect: Prefect,  # noqa: F811
    slurm: Slurm,
    project: Path,
    tmp_path: Path,
) -> Iterator[Path]:
    """The project, deployed, and a worker with Slurm's commands, as on a login node."""
    cancel.prepare(project)
    (tmp_path / "worker").mkdir()
    with working(prefect, project, tmp_path / "worker", slurm.environment):
        yield project


def test_a_cancelled_flow_run_cancels_its_job(
    prefect: Prefect,  # noqa: F811
    slurm: Slurm,
    deployed: Path,
) -> None:
    run = cancel.start(prefect, deployed)
    assert cancel.cancel(prefect, slurm, deployed, run) < 15
    wait_until("cancelled run", lambda: prefect.run(run)["state_type"] == "CANCELLED")
