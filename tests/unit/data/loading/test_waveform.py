"""Batches of waveforms: the same clips, draws and features as batches of features, with every augmentation."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.loading import Make
from support.media import TINY_CLIP, write_data
from support.shards import TinyShards

from mirasol.data.conditions import Condition
from mirasol.data.loading.augment import Augmentation, under
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import TrainingLoader, log_mel_of
from mirasol.data.loading.waveform import chunk_lengths, chunks_shape, cut
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE
from mirasol.model.batch import Batch

EACH = {
    "nothing": {},
    "mute and blank": {"mute": 0.4, "blank": 0.3},
    "masks": {"augmentation": Augmentation(spec_time=0.6, spec_mel=0.6)},
    "jitter": {"augmentation": Augmentation(jitter=1)},
    "mixup": {"augmentation": Augmentation(mixup=1.0)},
    "all": {
        "mute": 0.2,
        "blank": 0.2,
        "augmentation": Augmentation(crop=0.3, flip=0.5, spec_time=0.4, spec_mel=0.4, mixup=0.4, jitter=1),
    },
}


def to_log_mel(loader: TrainingLoader, start: int = 0) -> Iterator[Batch]:
    """Batches of waveforms with the features that the model makes of them."""
    log_mel = log_mel_of(loader.form.spec)
    for batch in itertools.islice(loader, start, None):
        assert batch.waveform is not None and not batch.audio.numel()
        yield dataclasses.replace(batch, audio=log_mel.of_waveform(batch.waveform, batch.audio_present), waveform=None)


def compare(ours: Iterable[Batch], theirs: Iterable[Batch], count: int) -> None:
    for one, two in itertools.islice(zip(ours, theirs, strict=False), count):
        for name, value in vars(one).items():
            expected = getattr(two, name)
            if name == "audio":
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
            elif isinstance(value, torch.Tensor):
                assert torch.equal(value, expected), name
            elif name == "targets":
                ours_and_theirs = zip(vars(value).values(), vars(expected).values(), strict=True)
                assert all(torch.equal(a, b) for a, b in ours_and_theirs)
            else:
                assert value == expected, name


@pytest.mark.parametrize("name", EACH)
def test_both_forms_give_the_same_batches(loader: Make, name: str) -> None:
    compare(to_log_mel(loader(waveform=True, **EACH[name])), loader(**EACH[name]), 12)


@pytest.mark.parametrize("batches", [1, 4, 7])
def test_both_forms_go_on_alike_in_the_middle(loader: Make, batches: int) -> None:
    resumed = loader(waveform=True, start=3 * batches, **EACH["all"])
    compare(to_log_mel(resumed), itertools.islice(loader(**EACH["all"]), batches, None), 5)


def test_clips_that_end_early_are_the_same_in_both_forms(tmp_path: Path) -> None:
    """Six chunks of which the clips have two: what is masked, mixed and absent is the same."""
    data = write_data(tmp_path / "data", 8)
    spec = dataclasses.replace(TINY_CLIP, chunks=6, level="relative")
    build_shards(data, tmp_path / "shards", spec, ShardsSpec(workers=1))
    shards = ShardDataset(tmp_path / "shards", "train")
    for index in range(len(shards)):
        features, sound = shards.arrays(index), shards.arrays(index, waveform=True)
        assert features.audio_present.tolist() == sound.audio_present.tolist() != [True] * 6
        assert (features.audio is None) == (sound.waveform is None)
        if sound.waveform is not None:
            mel = log_mel_of(spec)(*map(torch.from_numpy, (sound.waveform.chunks, sound.waveform.samples)))
            np.testing.assert_allclose(mel[0].numpy(), features.audio, rtol=0, atol=1e-5)


def test_workers_change_nothing(loader: Make) -> None:
    settings = {"waveform": True, **EACH["all"]}
    alone = [torch.cat([b.waveform.chunks.flatten(), b.waveform.masks.flatten()]) for b in first(loader(**settings), 5)]
    apart = [
        torch.cat([b.waveform.chunks.flatten(), b.waveform.masks.flatten()])
        for b in first(loader(workers=1, **settings), 5)
    ]
    assert all(torch.equal(a, b) for a, b in zip(alone, apart, strict=True))


def first(batches: Iterable[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def test_a_batch_takes_its_waveform_along(loader: Make) -> None:
    moved = next(iter(loader(waveform=True))).to("meta").waveform
    assert {value.device.type for value in vars(moved).values()} == {"meta"}


def test_the_cache_keeps_waveforms_beside_features(tiny_shards: TinyShards, tmp_path: Path) -> None:
    plain = ShardDataset(tiny_shards.folder, "train")
    for _ in range(2):  # decoded, and from the cache
        cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
        for index in range(len(plain)):
            for form in (False, True):
                ours, theirs = cached.arrays(index, waveform=form), plain.arrays(index, waveform=form)
                assert all(np.array_equal(getattr(ours, n), getattr(theirs, n)) for n in ("video", "audio"))
                assert (ours.waveform is None) == (theirs.waveform is None)
                if ours.waveform is not None and theirs.waveform is not None:
                    assert np.array_equal(ours.waveform.chunks, theirs.waveform.chunks)
                    assert np.array_equal(ours.waveform.samples, theirs.waveform.samples)
    assert {path.name for path in tmp_path.glob("*/train.*")} == {"train.clips", "train.waves-1"}


def test_the_cache_of_waveforms_saves_decoding(
    tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
    cached.arrays(0, waveform=True)
    monkeypatch.setattr("mirasol.data.loading.dataset.unpack_video", None)
    assert cached.arrays(0, waveform=True).video is not None


def test_a_flipped_bit_of_sound_is_told(tiny_shards: TinyShards, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))
    shards = ShardDataset(folder, "train")
    path, offset = folder / shards._tars.names[0], shards._places[0][1].places["flac"][0]
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"flac is damaged: the bytes do not match their hash"):
        ShardDataset(folder, "train").arrays(0, waveform=True)


def test_chunks_of_each_clips_own_length_make_no_batch(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    build_shards(data, tmp_path / "shards", dataclasses.replace(TINY_CLIP, sampling="spread"), ShardsSpec(workers=1))
    with pytest.raises(ValueError, match=r"under clip\.sampling rate alone, this is spread"):
        ShardDataset(tmp_path / "shards", "train").arrays(0, waveform=True)


def test_a_chunk_lies_behind_a_window_of_what_came_before() -> None:
    spec = ClipSpec(fps=7.3, frames_per_chunk=3)  # 410.96 ms: chunks of 6575 and 6576 samples
    lengths = chunk_lengths(spec)
    assert sorted(set(lengths.tolist())) == [6575, 6576] and chunks_shape(spec) == (4, 400 + 6576)
    sound = np.random.default_rng(0).integers(-9, 9, int(lengths.sum())).astype(np.int16)
    whole = np.concatenate([np.zeros(400, np.int16), sound])
    found, begin = cut(sound, spec, 3), 0
    for row, length in zip(found.chunks[0][:3], lengths[:3], strict=True):
        whole = np.concatenate([np.zeros(400, np.int16), sound])
        assert (
            np.array_equal(row[: 400 + length], whole[begin : begin + 400 + length]) and not row[400 + length :].any()
        )
        begin += length
    assert not found.chunks[0, 3].any() and found.samples[0].tolist() == [*lengths[:3], 0]


def test_muted_sound_is_exact_silence(tiny_shards: TinyShards) -> None:
    quiet: Any = under(Condition.muted, ShardDataset(tiny_shards.folder, "train").arrays(0, waveform=True)).waveform
    mel = log_mel_of(TINY_CLIP)(torch.from_numpy(quiet.chunks), torch.from_numpy(quiet.samples))
    assert (mel == SILENCE).all()
