"""A small project that has run, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.scratch import commit, make_project, ran

from mirasol.pipeline.dvc import dvc


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have all run, committed; not to be changed."""
    root = make_project(tmp_path_factory.mktemp("ops") / "finished")
    dvc.repro(root=root, on_line=lambda _: None)
    assert ran(root) == ["first", "second", "third"]
    commit(root, "Results")
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    root = tmp_path / "project"
    shutil.copytree(finished, root, symlinks=True)
    return root
