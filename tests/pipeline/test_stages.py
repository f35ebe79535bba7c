"""All stages one after another on a handful of clips: every joint of the pipeline, nothing about accuracy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.inprocess import mirasol


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the project that has run."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


def test_every_joint_of_the_pipeline_holds(root: Path) -> None:
    for words in (
        ["data", "check"],
        ["data", "look", "--phase", "finetune", "--clips", "2", "--out", "look.png"],
    ):
        done = mirasol(words, root)
        assert done.status == 0, done.err
    assert (root / "look.png").is_file()

    reports = {path.name for path in (root / "reports").iterdir()}
    written = {"shards", "pretrain", "audio_pretrain", "finetune", "eval", "parity", "streaming", "metrics"}
    assert reports == {f"{name}.json" for name in written}
    assert (root / "runs/latency.json").is_file()
    parity = json.loads((root / "reports/parity.json").read_text(encoding="utf-8"))
    assert parity["max_relative"] <= 1e-5
    assert "<html" in (root / "build/report/index.html").read_text(encoding="utf-8")


def test_a_second_run_changes_nothing_that_git_holds(root: Path) -> None:
    published = {path.name: path.read_bytes() for path in (root / "reports").iterdir()}
    for name in ("evaluate", "export", "benchmark", "reports"):
        done = mirasol(["stage", name], root)
        assert done.status == 0, f"stage {name}: {done.err}"
    again = {path.name for path in (root / "reports").iterdir() if path.read_bytes() != published[path.name]}
    assert again == set()


def test_the_bundle_answers(root: Path) -> None:
    clip = next((root / "data/media/test").rglob("*.mp4"))
    done = mirasol(["answer", str(clip), "What colour is the large one?"], root)
    assert (done.status, done.out[-1:]) == (0, "\n")
