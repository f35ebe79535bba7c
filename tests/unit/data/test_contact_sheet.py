"""Contact sheets: every clip with its state, pages, and augmented training samples."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.loading import SETTINGS, Make, keys, loader, tokenizer  # noqa: F401 (fixtures)
from support.media import TINY_CLIP, example, tone, write_media
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.contact_sheet import clip_marks, contact_sheet, sample_marks, training_contact_sheet
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.log_mel import SILENCE, black_frame
from mirasol.media.yuv import mirrored
from mirasol.tokenizer import Tokenizer

TWO_SECONDS = dataclasses.replace(TINY_CLIP, fps=2.0)


def size_of(path: Path) -> tuple[int, int]:
    return Image.open(io.BytesIO(path.read_bytes())).size


def said(marks: list[tuple[str, str]]) -> list[str]:
    return [text for _, text in marks]


def damaged_set(folder: Path) -> Path:
    """Shards of a sound clip, one cut short by damage, one that ends early, one cut by its end, and a rejected file."""
    data = folder / "data"
    write_media(data / "media/0.mp4", frames=4, fps=2, size=(16, 16), sound=tone(2))
    cut = write_media(data / "media/1.mkv", frames=80, gop=2, sound=tone(10))
    os.truncate(cut, cut.stat().st_size // 2)
    write_media(data / "media/2.mp4", frames=2, fps=2, size=(32, 32))
    write_media(data / "media/3.mp4", frames=8, fps=2, size=(32, 32), sound=np.zeros(32000, np.float32))
    (data / "media/4.mp4").write_bytes(b"no video")
    rows = [
        example(0),
        example(1, media="media/1.mkv", start=4.0, end=6.0),
        example(2, split="train"),
        example(3, split="train", end=3.0),
        example(4),
        example(5, media="media/0.mp4", split="val"),
    ]
    write_manifest(data / "manifest.jsonl", rows)
    build_shards(data, folder / "shards", TWO_SECONDS, ShardsSpec(workers=1, max_rejected=0.5))
    return folder / "shards"


def test_each_clip_is_told_its_state(tmp_path: Path) -> None:
    shards = ShardDataset(damaged_set(tmp_path), "train")
    states = [said(clip_marks(shards.meta(number), shards.spec)) for number in range(len(shards))]
    assert states[0] == ["ok", "picture copied from the source"]
    assert states[1][0].startswith("partial: ") and "up to" in states[1][0]
    assert states[2] == ["ok", "picture in 1 of 2 chunks", "no sound"]
    assert states[3] == ["ok", "silent", "cut short: 2 of 3 s"]


def test_rejected_clips_come_on_a_page_of_their_own(tmp_path: Path) -> None:
    shards = ShardDataset(damaged_set(tmp_path), "train")
    pages = contact_sheet(shards, tmp_path / "look.png")
    assert [page.name for page in pages] == ["look-1.png", "look-2.png"]
    assert size_of(pages[0])[1] > 4 * size_of(pages[1])[1]
    assert contact_sheet(shards, tmp_path / "key.png", keys=shards.keys[:1]) == [tmp_path / "key.png"]


def test_a_damaged_clip_is_shown_as_such(tiny_shards: TinyShards, tmp_path: Path) -> None:
    for path in tiny_shards.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    os.truncate(tmp_path / "train-00000.tar", 4000)
    assert contact_sheet(ShardDataset(tmp_path, "train", any_size=True), tmp_path / "look.png", clips=3)[0].is_file()


def test_many_clips_take_pages(tiny_shards: TinyShards, tmp_path: Path) -> None:
    shards = ShardDataset(tiny_shards.folder, "train")
    pages = contact_sheet(shards, tmp_path / "look.png", clips=len(shards) * 2)
    assert len(pages) == -(-len(shards) // 12)
    (page,) = contact_sheet(shards, tmp_path / "two.png", clips=2)
    assert page == tmp_path / "two.png"


def test_one_shard_can_be_seen(tiny_shards: TinyShards, tmp_path: Path) -> None:
    (page,) = contact_sheet(ShardDataset(tiny_shards.folder, "val"), tmp_path / "a.png", shard="val-00000.tar")
    assert page.is_file()
    with pytest.raises(MirasolError, match=r"no shard val-00009\.tar: there are val-00000\.tar to"):
        contact_sheet(ShardDataset(tiny_shards.folder, "val"), tmp_path / "a.png", shard="val-00009.tar")


def test_training_samples_are_those_of_the_loader(loader: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:  # noqa: F811
    training = loader(start=4, augmentation=Augmentation(crop=0.5, flip=0.5, mixup=0.4, jitter=1))
    drawn: list[int] = []
    read = type(training.samples).__getitem__

    class Samples(type(training.samples)):  # type: ignore[misc]
        def __getitem__(self, number: int) -> object:
            drawn.append(number)
            return read(self, number)

    training.samples.__class__ = Samples
    (page,) = training_contact_sheet(training, tokenizer, tmp_path / "a.png", clips=3, name="finetune")
    assert drawn == [4, 5, 6] and page.is_file()


def test_what_is_told_of_a_sample_is_what_was_done(loader: Make) -> None:  # noqa: F811
    samples = loader(mute=0.3, blank=0.3, augmentation=Augmentation(flip=0.5)).samples
    seen = set()
    for number in range(40):
        sample = samples[number]
        told = set(said(sample_marks(samples, number, sample)))
        seen |= told
        clip = sample.clip
        before = samples.clips.shard_set.arrays(samples.clips.shard_set.keys.index(sample.key))
        if clip.video is not None and clip.audio is not None:
            assert ("muted" in told) == (bool((clip.audio == SILENCE).all()) and bool((before.audio != SILENCE).any()))
            assert ("blanked" in told) == bool((clip.video == black_frame(16)).all())
        if clip.video is not None and "blanked" not in told:
            wanted = mirrored(before.video) if "mirrored" in told else before.video
            np.testing.assert_array_equal(clip.video, wanted)
    assert {"muted", "blanked", "mirrored", "unchanged"} <= seen


def test_a_mixture_and_a_later_beginning_are_told(loader: Make) -> None:  # noqa: F811
    samples = loader(augmentation=Augmentation(mixup=0.4, jitter=1)).samples
    mixtures = later = 0
    for number in range(40):
        sample = samples[number]
        told = " ".join(said(sample_marks(samples, number, sample)))
        assert ("mixed: " in told) == bool(sample.shares)
        if sample.shares:
            mixtures += 1
            assert f"mixed: {sample.shares[0]:.0%} of this" in told
            other = samples.clips.shard_set.keys.index(told.partition("% of this, ")[2].split()[2])
            ids = {row["id"] for row in samples.clips.shard_set.meta(other)["examples"]}
            assert {text.example for text in sample.texts[-1:]} <= ids
        later += "begun 1 chunk later" in told
    assert mixtures and later
