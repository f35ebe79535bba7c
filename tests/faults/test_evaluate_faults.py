"""Damaged test clips: their questions count as wrong and are listed, and too many of them are an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.training import small_world, train

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.evaluation.evaluate import Evaluator
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.training.config import TrainingConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with a model of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(small_world(folder / "world"), folder / "project", steps=2)
    return folder


@pytest.fixture
def world(trained: Path, tmp_path: Path) -> Path:
    """Its world, to be damaged."""
    return Path(shutil.copytree(trained / "world", tmp_path / "world", symlinks=True))


def score(trained: Path, world: Path, out: Path, max_damaged: float) -> dict[str, Any]:
    spec = EvaluateSpec(resamples=100, batch_size=4)
    weights, shards, words = trained / "project/build/finetune", world / "shards", world / "tokenizer.json"
    training = TrainingConfig(threads=1, accelerator="cpu", max_damaged=max_damaged)
    return Evaluator(weights, shards, words, spec, training, out / "cache").evaluate(world / "data", out)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["example_id"]: row for row in map(json.loads, (out / "predictions.jsonl").open())}


def damage(world: Path, kinds: dict[int, str]) -> list[str]:
    """Flip a bit of a file of each of these test clips; their keys."""
    shards = ShardDataset(world / "shards", "test")
    for number, kind in kinds.items():
        tar, entry = shards._places[number]
        path = world / "shards" / shards._tars.names[tar]
        data = bytearray(path.read_bytes())
        data[entry.places[kind][0] + 9] ^= 1
        path.write_bytes(data)
    return [shards.keys[number] for number in kinds]


def test_damaged_clips_count_as_wrong_and_are_listed_with_the_reason(
    trained: Path, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound = score(trained, trained / "world", tmp_path / "sound", 0.0)
    lost = damage(world, {0: "mp4", 2: "json"})
    report = score(trained, world, tmp_path / "out", 0.6)
    assert {m["clip"]: m["reason"].split(":")[0] for m in report["missing"]} == dict.fromkeys(lost, "damaged")
    assert "test-00000.tar: mp4: the bytes do not match" in report["missing"][0]["reason"]
    assert report["overall"]["n"] == sound["overall"]["n"]  # in the denominator
    ours, whole = rows(tmp_path / "out"), rows(tmp_path / "sound")
    assert ours.keys() == whole.keys()
    for example, row in ours.items():
        if row["clip"] in lost:
            assert set(row["predicted"].values()) == {None}
        else:
            assert row["predicted"]["unchanged"] == whole[example]["predicted"]["unchanged"]
    assert all(key in capfd.readouterr().err for key in lost[:1])


def test_a_shortened_tar_is_damaged_clips(trained: Path, world: Path, tmp_path: Path) -> None:
    shards = ShardDataset(world / "shards", "test")
    path, place = world / "shards/test-00000.tar", shards._places[-1][1].places["json"]
    path.write_bytes(path.read_bytes()[: place[0]])
    report = score(trained, world, tmp_path / "out", 0.4)
    assert [m["clip"] for m in report["missing"]] == [shards.keys[-1]]


def test_more_damage_than_the_budget_scores_nothing(trained: Path, world: Path, tmp_path: Path) -> None:
    (key,) = damage(world, {1: "flac"})
    with pytest.raises(MirasolError, match=rf"(?s)1 of \d+ clips .* training\.max_damaged = 0\.01.*{key}: damaged: "):
        score(trained, world, tmp_path / "out", 0.01)
    assert not (tmp_path / "out/predictions.jsonl").exists()


def test_all_damaged_scores_nothing_whatever_the_budget(trained: Path, world: Path, tmp_path: Path) -> None:
    damage(world, dict.fromkeys(range(len(ShardDataset(world / "shards", "test"))), "json"))
    with pytest.raises(MirasolError, match="nothing is scored"):
        score(trained, world, tmp_path / "out", 1.0)
