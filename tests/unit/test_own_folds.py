"""Folds over recordings: the test split stays unseen, and no recording is in two splits."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.media import example

ROOT = Path(__file__).parents[2]
FOLDS = 5
ROWS = [
    example(n * 100 + m, media=f"media/V_{n:03d}+S_{m:03d}.mp4", split="test" if n > 16 else "train")
    for n in range(20)
    for m in range(10)
]


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/folds.py, which is in no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("folds")
    sys.modules.pop("folds", None)


@pytest.mark.parametrize("number", range(FOLDS))
def test_no_recording_is_in_two_splits(folds: ModuleType, number: int) -> None:
    seen: dict[str, set[str]] = {}
    for row in folds.fold(ROWS, number, FOLDS):
        for name in folds.recordings(row):
            seen.setdefault(name, set()).add(row.split)
    assert seen and all(len(splits) == 1 for splits in seen.values())


def test_rows_of_the_test_split_are_in_no_fold(folds: ModuleType) -> None:
    unseen = {row.id for row in ROWS if row.split == "test"}
    assert not any(row.id in unseen for number in range(FOLDS) for row in folds.fold(ROWS, number, FOLDS))


def test_each_recording_is_tested_once(folds: ModuleType) -> None:
    tested = [{name for row in folds.fold(ROWS, n, FOLDS) if row.split == "test" for name in folds.recordings(row)}
              for n in range(FOLDS)]  # fmt: skip
    assert sum(map(len, tested)) == len(set().union(*tested)) == 17 + 10


def test_neighbouring_numbers_share_a_block(folds: ModuleType) -> None:
    block = folds.blocks([f"V_{n:03d}" for n in range(10)], FOLDS)
    assert [block[f"V_{n:03d}"] for n in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
