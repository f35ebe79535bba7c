"""The real annotation files: as many rows as were published, and none of them wrong."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from support.media import SHARED

from mirasol.tasks.base.importer import import_set
from mirasol.tasks.registry import ADAPTERS
from mirasol.tasks.scoring.normalise import normalise

FOLDER = SHARED / "annotations"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real files in {FOLDER}: set MIRASOL_SHARED")


@functools.cache
def summary(name: str) -> dict[str, Any]:
    return import_set(ADAPTERS[name], FOLDER / name, None, Path("never"), dry_run=True)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("activitynet-qa", {"train": 32000, "val": 18000, "test": 8000}),
        ("nextqa-mc", {"val": 4996, "test": 8564}),
        ("nextqa-oe", {"train": 37523, "val": 5343, "test": 9178}),
        ("vggsound", {"test": 15446}),
        ("epic-sounds", {"validation": 8035}),
        ("kinetics-sounds", {"train": 19220, "val": 1947, "test": 1958}),
        ("audioset", {"balanced_train": 22160, "eval": 20371}),
        ("msvd-qa", {"train": 30933, "val": 6415, "test": 13157}),
        ("audiocaps", {"train": 49838, "val": 2475, "test": 4875}),
    ],
)
def test_rows_are_as_many_as_published(name: str, rows: dict[str, int]) -> None:
    assert summary(name)["rows"] == rows
    assert summary(name)["examples"] == sum(rows.values())


def test_msrvtt_qa_reads_the_300_rows_at_hand(tmp_path: Path) -> None:
    # The copy calls them test, but clips 6513 to 6525 and ids from 158581 on are those of the val split.
    (tmp_path / "val_qa.json").symlink_to(FOLDER / "msrvtt-qa/test_qa.first300.json")
    found = import_set(ADAPTERS["msrvtt-qa"], tmp_path, None, tmp_path / "never", dry_run=True)
    assert (found["rows"], found["groups"]) == ({"val": 300}, 13)


def test_activitynet_qa_has_the_official_denominators() -> None:
    assert {split: counts["groups"] for split, counts in summary("activitynet-qa")["splits"].items()} == {
        "train": 3200, "val": 1800, "test": 800,
    }  # fmt: skip
    only = import_set(
        ADAPTERS["activitynet-qa"], FOLDER / "activitynet-qa", None, Path("never"), splits=["test"], dry_run=True
    )
    free = sum(count for name, count in only["families"].items() if name not in ("motion", "spatial", "temporal"))
    assert free == 5600


def test_epic_sounds_counts_the_segments_without_labels() -> None:
    assert summary("epic-sounds")["rows_without_label"] == {"test": 5131}


@pytest.mark.parametrize(
    ("name", "classes"), [("vggsound", 309), ("epic-sounds", 44), ("kinetics-sounds", 30), ("audioset", 527)]
)
def test_classes_are_as_many_as_published_and_stay_apart_when_normalised(name: str, classes: int) -> None:
    names = summary(name)["classes"]["counts"]
    assert len({normalise(text) for text in names}) == len(names) == classes


def test_one_video_of_msvd_lies_in_two_splits() -> None:
    assert summary("msvd-qa")["groups_in_several_splits"] == ["bQJQGoJF7_k"]


def test_known_faults_of_nextqa_are_named() -> None:
    assert summary("nextqa-oe")["repeated_ids"] == ["3617262562_2", "4598213889_2", "4598213889_5"]
    assert summary("nextqa-mc")["right_option_stands_twice"] == ["3842638015_4", "4794935391_1"]
