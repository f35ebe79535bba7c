"""One Prefect server and one process worker for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.prefect_server import Prefect, kill, prefect  # noqa: F401  (a fixture)
from support.scratch import REPOSITORY, make_project


@pytest.fixture(scope="session")
def deployed(
    prefect: Prefect,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A scratch project with the real flows and prefect.yaml, deployed, and a worker that serves it."""
    root = make_project(tmp_path_factory.mktemp("flows") / "project")
    (root / "flows").symlink_to(REPOSITORY / "flows")
    text = (REPOSITORY / "prefect.yaml").read_text()
    assert text.count("push: false") == 1
    (root / "prefect.yaml").write_text(text.replace("push: false", "report: false\n      retries: 0"))
    prefect.api.post("/work_pools/", json={"name": "mirasol", "type": "process"}).raise_for_status()
    prefect.command("prefect", "--no-prompt", "deploy", "--all", cwd=root)
    elsewhere = tmp_path_factory.mktemp("worker")  # so that only MIRASOL_HOME tells it where the project is
    with (elsewhere / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "mirasol"],
            cwd=elsewhere,
            env=prefect.env | {"MIRASOL_HOME": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield root
    finally:
        kill(worker)
