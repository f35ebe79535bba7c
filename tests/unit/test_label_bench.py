"""`mirasol bench label`: the choice of the next clips, the labels needed, and a training on a few of them."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from support.training import small_world

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/label.py, which is in no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("label")
    for name in ("label", "common"):
        sys.modules.pop(name, None)


def test_the_unsure_arm_adds_the_clips_of_least_margin(bench: ModuleType) -> None:
    asked: list[list[int]] = []

    def learn(chosen: list[int]) -> object:
        asked.append(list(chosen))
        return bench.Learnt(0.5, np.arange(20.0))

    bench.curve(learn, 20, bench.Plan(4, 3, 10), "unsure", 0)
    for before, after in itertools.pairwise(asked):
        left = sorted(set(range(20)) - set(before))
        assert after[len(before) :] == left[:3]


def test_both_arms_begin_with_the_same_clips_and_end_at_the_target(bench: ModuleType) -> None:
    asked: list[list[int]] = []

    def learn(chosen: list[int]) -> object:
        asked.append(list(chosen))
        return bench.Learnt(0.95, np.zeros(20))

    for arm in bench.ARMS:
        assert bench.curve(learn, 20, bench.Plan(4, 3, 10), arm, 0) == [(4, 0.95)]
    assert asked[0] == asked[1]


def test_labels_needed_are_interpolated(bench: ModuleType) -> None:
    assert bench.needed([(50, 0.7), (100, 0.8), (150, 1.0)]) == pytest.approx(125)
    assert bench.needed([(50, 0.7), (100, 0.8)]) == 100
    assert bench.needed([(50, 0.95)]) == 50


def test_unsure_points_need_fewer_labels_than_random_ones(bench: ModuleType) -> None:
    wanted = {
        arm: sum(
            bench.needed(bench.curve(bench.Points(seed, 400), 400, bench.Plan(10, 5, 300), arm, seed))
            for seed in range(6)
        )
        for arm in bench.ARMS
    }
    assert wanted["unsure"] <= 0.7 * wanted["random"]


@pytest.mark.slow
def test_the_model_learns_from_the_chosen_clips_alone(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(tmp_path / "world", clips=24)
    (tmp_path / "build" / "tokenizer").mkdir(parents=True)
    (tmp_path / "build" / "tokenizer" / "tokenizer.json").symlink_to(world / "tokenizer.json")
    (tmp_path / "build" / "shards").symlink_to(world / "shards")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [json.loads(line) for line in (world / "data" / "manifest.jsonl").read_text().splitlines()]
    asked = [{row["prompt"] for row in rows if (row["task"], row["split"]) == ("qa", s)} for s in ("train", "test")]
    question = min(asked[0] & asked[1])
    options = SimpleNamespace(steps=2, init=None, pool=5, question=question)
    learn = bench.Trained(options, 1, tmp_path / "runs")
    found = learn([0, 1])
    assert 0 <= found.accuracy <= 1
    assert found.margins.shape == (len(learn.pool),) and (found.margins >= 0).all()
    assert len(list((tmp_path / "runs").iterdir())) == 1
