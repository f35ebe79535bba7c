"""A Slurm of two nodes, and a project whose phases train for seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.phase import phase_project
from support.slurm import Slurm, missing
from support.training import small_world


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """The running cluster."""
    if why := missing():
        pytest.skip(why)
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def empty_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    """No job is left by a test."""
    yield
    if "slurm" in request.fixturenames:
        cluster: Slurm = request.getfixturevalue("slurm")
        left = cluster.jobs()
        cluster.call("scancel", "--state=PENDING")
        cluster.call("scancel", "--state=RUNNING")
        assert left == ""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world; not to be changed."""
    return small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before its finetuning; not to be changed."""
    root = phase_project(world, tmp_path_factory.mktemp("trained") / "project")
    subprocess.run([sys.executable, "-m", "mirasol", "stage", "pretrain"], cwd=root, check=True, timeout=300)
    shutil.copytree(root / "build/pretrain", root / "build/audio_pretrain")
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    root = tmp_path / "project"
    shutil.copytree(trained, root, symlinks=True)
    return root


@pytest.fixture(scope="session")
def environment(slurm: Slurm) -> dict[str, str]:
    """With Slurm's commands, and the `mirasol` and `dvc` of this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), slurm.environment["PATH"]])
    return os.environ | slurm.environment | {"PATH": path, "PYTHONUNBUFFERED": "1"}
