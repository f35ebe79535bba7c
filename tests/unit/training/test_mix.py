"""Two data sets from manifest to weights: `mix` in a phase, its report, its refusals, and a resumed run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import train

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.clip import ClipSpec
from mirasol.training.config import is_mix, parse_mix
from mirasol.training.curves import read_lines

MIX: dict[str, Any] = {"steps": 6, "checkpoint_every": 3, "mix": "near:3 far:1"}


@pytest.fixture(scope="module")
def two_sets(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world again; every third video is of the data set `far`, the others of `near`."""
    folder = tmp_path_factory.mktemp("two sets")
    rows = read_manifest(world / "data" / "manifest.jsonl")
    groups = sorted({e.group for e in rows})
    rows = [dataclasses.replace(e, set="near" if groups.index(e.group) % 3 else "far") for e in rows]
    (folder / "data").mkdir()
    (folder / "data" / "media").symlink_to(world / "data" / "media")
    write_manifest(folder / "data" / "manifest.jsonl", rows)
    build_shards(folder / "data", folder / "shards", ClipSpec(), ShardsSpec(workers=1))
    (folder / "tokenizer.json").symlink_to(world / "tokenizer.json")
    return folder


def test_a_phase_reports_its_samples_of_each_set(two_sets: Path, tmp_path: Path) -> None:
    assert train(two_sets, tmp_path, **MIX)["sets"] == {"far": 6, "near": 18}
    assert "sets" not in train(two_sets, tmp_path / "alike", steps=1)


def test_names_of_sets_alone_change_no_training(world: Path, two_sets: Path, tmp_path: Path) -> None:
    assert train(two_sets, tmp_path / "named") == train(world, tmp_path / "plain")


def test_a_killed_run_ends_as_one_left_alone(two_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(two_sets, tmp_path / "whole", **MIX)
    save = torch.save

    def fail_after_first(*values: Any, **options: Any) -> None:
        monkeypatch.setattr("torch.save", killed)
        save(*values, **options)

    def killed(*values: Any, **options: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr("torch.save", fail_after_first)
    with pytest.raises(RuntimeError, match="killed"):
        train(two_sets, tmp_path / "killed", **MIX)
    monkeypatch.setattr("torch.save", save)
    assert train(two_sets, tmp_path / "killed", **MIX) == whole
    curves = [read_lines(tmp_path / name / "build/finetune/curves.jsonl") for name in ("whole", "killed")]
    assert curves[0] == curves[1]


def test_an_unknown_set_is_refused_before_the_first_step(two_sets: Path, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"data set fra .*data sets that have: far, near"):
        train(two_sets, tmp_path, mix="near:3 fra:1")
    assert not read_lines(tmp_path / "runs/finetune/curves.jsonl")


@pytest.mark.parametrize("text", ["near", "near:0", "near:1.5", "near:3,far:1", "near:1 near:2", ":3", "near:-1"])
def test_another_text_is_no_mix(text: str) -> None:
    assert not is_mix(text)
    with pytest.raises(ValueError, match="expected NAME:WEIGHT"):
        parse_mix(text)


def test_a_mix_is_read() -> None:
    assert parse_mix("") == {} and parse_mix(" a-b.c:12  d:1 ") == {"a-b.c": 12, "d": 1}
