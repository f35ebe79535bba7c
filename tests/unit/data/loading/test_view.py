"""A phase's view of clips at rest: whole numbers, sound and picture of the same time, jitter before the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.media import TINY_CLIP
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded, audio_shape, video_shape
from mirasol.data.loading.loader import log_mel_of
from mirasol.data.loading.samples import Clips, SampleSettings, TrainingSamples, Wanted
from mirasol.data.loading.view import viewed
from mirasol.data.loading.waveform import chunk_lengths, chunks_shape
from mirasol.media.clip import ClipSpec, View
from mirasol.media.log_mel import SILENCE, black_frame
from mirasol.media.yuv import shrunk
from mirasol.model.batch import Waveform
from mirasol.tokenizer import Tokenizer

STORED = ClipSpec(chunks=4, frames_per_chunk=4, size=48)
HALF = View(size=24, chunks=3, frames_per_chunk=2)


def clip() -> Decoded:
    draws = np.random.default_rng(1)
    video = draws.integers(0, 256, video_shape(STORED), np.uint8)
    return Decoded(video, draws.random(audio_shape(STORED), np.float32), np.arange(4) < 4, np.arange(4) < 2)


def test_the_whole_view_is_the_clip_itself() -> None:
    given = clip()
    assert viewed(given, STORED, View().of(STORED)) is given


def test_a_chunk_lasts_as_long_in_any_view() -> None:
    seen = HALF.of(STORED)
    assert (seen.size, seen.chunks, seen.frames_per_chunk, seen.audio_columns) == (24, 3, 2, 8)
    assert seen.chunk_seconds == STORED.chunk_seconds


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(size=36), "size 36: expected 48 divided"),
        (View(size=16 * 7), "size 112"),
        (View(chunks=5), "chunks 5: expected at most 4"),
        (View(frames_per_chunk=3), "frames_per_chunk 3: expected 4 divided"),
    ],
)
def test_a_view_that_the_clip_does_not_hold_is_refused(view: View, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view.of(STORED)


def test_a_part_of_a_spread_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="spread over the clip"):
        View(chunks=2).of(ClipSpec(sampling="spread", chunks=4))


def test_every_second_frame_of_the_first_chunks_stays() -> None:
    found = viewed(clip(), STORED, View(chunks=3, frames_per_chunk=2).of(STORED))
    given = clip().video
    assert given is not None
    assert np.array_equal(found.video, given[:3, ::2])
    assert found.video_present.tolist() == [True] * 3
    assert found.audio_present.tolist() == [True, True, False]


@pytest.mark.parametrize("side", [2, 3, 4])
def test_a_pixel_is_the_rounded_mean_of_its_square(side: int) -> None:
    size = 24 // side
    if size % 2:
        size, side = 12, 2
    frames = np.random.default_rng(2).integers(0, 256, (2, 36, 24), np.uint8)
    found = shrunk(frames, size)
    luma = frames[:, :24].reshape(2, size, side, size, side).sum(axis=(2, 4), dtype=np.int64)
    assert np.array_equal(found[:, :size], (2 * luma + side * side) // (2 * side * side))
    chroma = frames[:, 24:].reshape(2, 2, size // 2, side, size // 2, side).sum(axis=(3, 5), dtype=np.int64)
    expected = (2 * chroma + side * side) // (2 * side * side)
    assert np.array_equal(found[:, size:].reshape(expected.shape), expected)


def test_black_and_white_stay_what_they_are() -> None:
    assert np.array_equal(shrunk(black_frame(48)[None], 24)[0], black_frame(24))
    assert (shrunk(np.full((1, 72, 48), 255, np.uint8), 6) == 255).all()


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="32 of 48 pixels"):
        shrunk(np.zeros((1, 72, 48), np.uint8), 32)


def test_columns_of_sound_are_means_of_the_same_time() -> None:
    found, given = viewed(clip(), STORED, HALF.of(STORED)).audio, clip().audio
    assert found is not None
    assert given is not None
    assert np.allclose(found, (given[:3, ::2] + given[:3, 1::2]) / 2, atol=1e-7)


def test_silence_stays_silence() -> None:
    silent = Decoded(None, np.full(audio_shape(STORED), SILENCE, np.float32), np.zeros(4, bool), np.ones(4, bool))
    found = viewed(silent, STORED, HALF.of(STORED)).audio
    assert found is not None
    assert (found == np.float32(SILENCE)).all()


@pytest.mark.parametrize("fps", [8.0, 25.0, 24.0, 29.97, 7.3])
def test_chunks_of_a_view_have_the_samples_of_the_clip(fps: float) -> None:
    stored = ClipSpec(fps=fps, chunks=16, frames_per_chunk=12, sample_rate=16000)
    for frames in (1, 2, 3, 4, 6):
        seen = View(frames_per_chunk=frames).of(stored)
        assert np.array_equal(chunk_lengths(seen), chunk_lengths(stored))


SEEN = View(size=TINY_CLIP.size // 2, chunks=TINY_CLIP.chunks - 1, frames_per_chunk=TINY_CLIP.frames_per_chunk // 2)


def test_log_mel_of_a_viewed_waveform_is_the_viewed_log_mel(tiny_shards: TinyShards) -> None:
    shards = ShardDataset(tiny_shards.folder, "train", view=SEEN)
    number = next(n for n in range(len(shards)) if shards.meta(n)["has_audio"])
    features, sound = shards.arrays(number).audio, shards.arrays(number, waveform=True)
    assert features is not None
    assert sound.waveform is not None
    assert sound.waveform.chunks.shape[1:] == chunks_shape(shards.spec)
    shares, masks = torch.ones(1, 1), torch.zeros(1, 1, 4, dtype=torch.int64)
    parts = (torch.from_numpy(x.copy())[None] for x in (sound.waveform.chunks, sound.waveform.samples))
    present = torch.from_numpy(sound.audio_present)
    made = log_mel_of(shards.spec).of_waveform(Waveform(*parts, masks, shares), present[None])
    torch.testing.assert_close(made[0][present], torch.from_numpy(features)[present], atol=1e-4, rtol=0)


def test_the_cache_holds_clips_for_every_view(tiny_shards: TinyShards, tmp_path: Any) -> None:
    whole = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
    part = ShardDataset(tiny_shards.folder, "train", cache=tmp_path, view=SEEN)
    for _ in range(2):  # decoded, then from the cache
        given, found = whole.arrays(0), part.arrays(0)
        expected = viewed(given, whole.stored, part.spec)
        assert all(np.array_equal(a, b) for a, b in zip(vars(found).values(), vars(expected).values(), strict=True))


def test_a_view_that_does_not_fit_the_shards_names_them(tiny_shards: TinyShards) -> None:
    with pytest.raises(MirasolError, match=rf"{tiny_shards.folder}: a view of clips: chunks 99"):
        ShardDataset(tiny_shards.folder, "train", view=View(chunks=99))


def test_a_later_start_brings_later_chunks_into_view(tiny_shards: TinyShards, tokenizer: Tokenizer) -> None:
    shards = ShardDataset(tiny_shards.folder, "train", view=View(chunks=TINY_CLIP.chunks - 1))
    settings = SampleSettings(("qa",), 3, 2, 0.0, augmentation=Augmentation(jitter=1))
    samples = TrainingSamples(Clips(shards, tokenizer, Wanted(("qa",))), settings)
    kept = {int(samples[n].clip.video_present.sum()) for n in range(12) if samples[n].clip.video is not None}
    full = [int(shards.meta(n)["video_chunks"]) for n in range(len(shards)) if shards.meta(n)["has_video"]]
    assert max(full) == TINY_CLIP.chunks
    assert TINY_CLIP.chunks - 1 in kept
