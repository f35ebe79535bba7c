"""The prompts of a bundle are those of the training split, the most frequent first."""

from __future__ import annotations

from collections import Counter

import pytest
from support.shards import TinyShards

from mirasol.data.manifest import read_manifest
from mirasol.export import prompts as module
from mirasol.export.prompts import learnt_prompts


def test_prompts_of_the_training_split_by_frequency(tiny_shards: TinyShards) -> None:
    counts = Counter(e.prompt for e in read_manifest(tiny_shards.data / "manifest.jsonl") if e.split == "train")
    assert learnt_prompts(tiny_shards.folder) == tuple(sorted(counts, key=lambda p: (-counts[p], p)))


def test_their_number_and_length_are_bounded(tiny_shards: TinyShards, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learnt_prompts(tiny_shards.folder) or ()
    monkeypatch.setattr(module, "MOST_PROMPTS", 1)
    assert learnt_prompts(tiny_shards.folder) == whole[:1]
    monkeypatch.setattr(module, "MOST_CHARACTERS", 0)
    assert learnt_prompts(tiny_shards.folder) == ()


def test_shards_without_the_split_have_none(tiny_shards: TinyShards) -> None:
    assert learnt_prompts(tiny_shards.folder, "nowhere") is None
