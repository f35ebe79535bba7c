"""Checks of the stages before their work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.world.make import make_world
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.stages import STAGES, check_mixes

ROOT = Path(__file__).parents[3]
ROW = {
    "id": "a", "media": "media/a.mp4", "start": None, "end": None, "task": "qa", "prompt": "?", "answers": ["b"],
    "split": "train", "group": "a", "family": "", "licence": "", "set": "near",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose manifest has the data set `near`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(**mixes: str) -> None:
    params = load_params(ROOT / "params.yaml")
    changed = {phase: dataclasses.replace(getattr(params, phase), mix=mix) for phase, mix in mixes.items()}
    check_mixes(dataclasses.replace(params, **changed))


def test_a_mix_of_known_data_sets_passes(project: Path) -> None:
    check(finetune="near:2")


def test_unknown_data_sets_of_all_phases_are_one_error(project: Path) -> None:
    with pytest.raises(MirasolError, match=r"it has: near(.|\n)*pretrain\.mix: far(.|\n)*finetune\.mix: fra"):
        check(pretrain="far:1", finetune="near:1 fra:1")


def test_no_mix_reads_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check()


def test_shards_that_are_made_again_leave_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_world(tmp_path / "data", clips=8, workers=1)
    params = load_params(ROOT / "params.yaml")
    params = dataclasses.replace(params, shards=dataclasses.replace(params.shards, workers=1))
    reports = []
    for _ in range(2):
        STAGES["shards"](params)
        reports.append(Path("build/reports/shards.json").read_bytes())
    assert reports[0] == reports[1]
