"""Two small projects that have run, made once and copied for each test: one of scripts, one of the real stages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.inprocess import mirasol
from support.prefect_server import prefect  # noqa: F401  (a fixture)
from support.scratch import commit, copy_repository, make_project, ran

from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.stages import STAGES

PHASE = {"steps": 2, "batch_size": 4, "warmup": 1, "checkpoint_every": 2, "val_clips": 4}
SMALL: dict[str, dict[str, Any]] = {
    "shards": {"workers": 1},
    "training": {"threads": 1, "workers": 0},
    "pretrain": PHASE,
    "audio_pretrain": PHASE,
    "finetune": PHASE,
    "evaluate": {"resamples": 100, "gallery": 2},
    "export": {"clips": 2},
    "benchmark": {"rounds": 3, "clips": 1, "threads": 1},
}


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository with all its stages run on a handful of clips, not under git; not to be changed."""
    root = tmp_path_factory.mktemp("trained") / "project"
    copy_repository(root, leave=("tests/", "reports/", "docs/decisions/"))
    yaml = YAML()
    params = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section].update(values)
    yaml.dump(params, root / "params.yaml")
    for words in (["world", "--clips", "12", "--workers", "1"], *(["stage", name] for name in STAGES), ["report"]):
        done = mirasol(words, root)
        assert done.status == 0, f"{words}: {done.err}"
    return root
