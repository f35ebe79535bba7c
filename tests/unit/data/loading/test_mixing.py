"""Several data sets in one order: exact proportions, each set in its own order, resumable at any sample."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.loading import Make, digest, in_turn, keys, loader_of
from support.media import TINY_CLIP
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.mixing import ClipOrder, Mixture
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.tokenizer import Tokenizer

WEIGHTS = [{"a": 1}, {"a": 3, "b": 1}, {"b": 2, "a": 5, "c": 1}]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_each_window_has_exactly_the_weights(weights: dict[str, int]) -> None:
    window, mixture = sum(weights.values()), Mixture(weights, seed=3)
    for low in range(0, 20 * window, window):
        found = Counter(mixture.names[mixture.locate(low + i)[0]] for i in range(window))
        assert found == weights


@pytest.mark.parametrize("weights", WEIGHTS)
def test_counts_are_those_of_the_samples(weights: dict[str, int]) -> None:
    mixture = Mixture(weights, seed=3)
    for samples in (0, 1, 7, 8, 29):
        found = Counter(mixture.names[mixture.locate(i)[0]] for i in range(samples))
        assert mixture.counts(samples) == {name: found[name] for name in sorted(weights)}


def test_each_set_goes_through_its_own_numbers_in_order() -> None:
    places = [Mixture({"a": 3, "b": 2}, seed=1).locate(sample) for sample in range(200)]
    for which in (0, 1):
        numbers = [number for i, number in places if i == which]
        assert numbers == list(range(len(numbers)))


def test_each_window_has_its_own_order() -> None:
    mixture = Mixture({"a": 4, "b": 4}, seed=1)
    windows = {tuple(mixture.locate(8 * w + i)[0] for i in range(8)) for w in range(20)}
    assert len(windows) > 10


@pytest.mark.parametrize("weights", [{}, {"a": 0, "b": 1}, {"a": 0.5, "b": 1}, {"a": -1}])
def test_other_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="expected whole numbers of at least 1"):
        Mixture(weights, seed=1)


def test_every_epoch_of_a_set_has_each_of_its_clips_once() -> None:
    sets = ["a", "b", "a", "b", "a", "b"]
    order = ClipOrder(sets, Mixture({"a": 2, "b": 1}, seed=1))
    found = [order.index(sample) for sample in range(54)]
    epochs = {}
    for name, clips in (("a", [0, 2, 4]), ("b", [1, 3, 5])):
        mine = [clip for clip in found if sets[clip] == name]
        epochs[name] = [mine[i : i + 3] for i in range(0, 18, 3)]
        assert all(sorted(epoch) == clips for epoch in epochs[name])
    assert [[i - 1 for i in epoch] for epoch in epochs["b"]] != epochs["a"]  # sets of one size do not go in step


@pytest.fixture(scope="module")
def two_sets(tiny_shards: TinyShards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shards again; rows of even clips are of the data set `even`, the others of `odd`."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = [
        dataclasses.replace(e, set=("even", "odd")[int(Path(e.media).stem) % 2])
        for e in read_manifest(tiny_shards.data / "manifest.jsonl")
    ]
    (folder / "data").mkdir()
    (folder / "data" / "media").symlink_to(tiny_shards.data / "media")
    write_manifest(folder / "data" / "manifest.jsonl", rows)
    build_shards(folder / "data", folder / "shards", TINY_CLIP, ShardsSpec(workers=1, clips_per_shard=3))
    return folder / "shards"


@pytest.fixture
def mixed(two_sets: Path, tokenizer: Tokenizer) -> Make:
    def make(**changes: Any) -> Any:
        values = {"tasks": ("qa",), "batch_size": 4, "texts_per_clip": 2, "caption_weight": 0.3, "seed": 5}
        return loader_of(
            ShardDataset(two_sets, "train"), tokenizer, **(values | {"mix": {"odd": 3, "even": 1}} | changes)
        )

    return make


def sets_of(shards: Path) -> dict[str, str]:
    split = ShardDataset(shards, "train")
    return {split.keys[n]: split.meta(n)["examples"][0]["set"] for n in range(len(split))}


def test_batches_of_a_window_have_exactly_the_weights(mixed: Make, two_sets: Path) -> None:
    sets = sets_of(two_sets)
    for batch in itertools.islice(mixed(mute=0.3, augmentation=Augmentation(mixup=0.4)), 12):
        assert Counter(sets[key] for key in batch.keys) == {"odd": 3, "even": 1}


@pytest.mark.parametrize("batches", [1, 3])
def test_a_mixture_resumes(mixed: Make, batches: int) -> None:
    changes = {"mute": 0.3, "batch_size": 3, "augmentation": Augmentation(mixup=0.4)}
    whole = itertools.islice(iter(mixed(**changes)), batches, None)
    assert digest(whole, 5) == digest(mixed(start=3 * batches, **changes), 5)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_a_mixture(mixed: Make, world: int) -> None:
    ranks = [keys(mixed(batch_size=4 // world, world=world, rank=rank), 5) for rank in range(world)]
    assert in_turn(ranks, 4 // world) == keys(mixed(), 5)


def test_a_mixture_has_waveforms_as_well(mixed: Make) -> None:
    batch = next(iter(mixed(waveform=True)))
    assert batch.waveform is not None and len(batch.waveform.chunks) == 4
    assert batch.keys == next(iter(mixed())).keys


def test_the_order_of_writing_decides_nothing(mixed: Make) -> None:
    assert digest(mixed(mix={"odd": 3, "even": 1}), 5) == digest(mixed(mix={"even": 1, "odd": 3}), 5)


def test_names_of_sets_change_nothing_without_a_mixture(mixed: Make, loader: Make) -> None:
    assert digest(mixed(mix={}, batch_size=3), 5) == digest(loader(), 5)


def test_a_set_left_out_does_not_come(mixed: Make, two_sets: Path) -> None:
    sets = sets_of(two_sets)
    assert {sets[key] for key in keys(mixed(mix={"odd": 2}), 6)} == {"odd"}


def test_an_unknown_set_is_refused_with_the_known_ones(mixed: Make) -> None:
    with pytest.raises(MirasolError, match=r"data set od .* task qa; data sets that have: even, odd"):
        mixed(mix={"odd": 3, "od": 1})


def test_shards_without_sets_say_so(loader: Make) -> None:
    with pytest.raises(MirasolError, match="data sets that have: none, no row names its data set"):
        loader(mix={"odd": 3})
