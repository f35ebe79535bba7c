"""Overlapping chunks: the frames that they see, and those that they must not see."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import PRESENCE, random_batch, tiny_config, tiny_model, with_presence

from mirasol.media.log_mel import SILENCE as FEATURES_SILENCE
from mirasol.media.log_mel import black_frame
from mirasol.model.mirasol import Mirasol
from mirasol.model.overlap import SILENCE, Overlap
from mirasol.model.streaming import EncoderCombiner, reset


def seen(config, batch):
    overlap = Overlap(config)
    return overlap.video(batch.video, batch.video_present), overlap.audio(batch.audio, batch.audio_present)


def test_a_chunk_sees_the_end_of_the_one_before():
    config = tiny_config(overlap=1)  # of 4 frames; 2 of 8 audio columns
    batch = random_batch(config)
    video, audio = seen(config, batch)
    assert video.shape[2:] == (5, 24, 16)
    assert audio.shape[2:] == (10, 8)
    assert torch.equal(video[:, 1:, :1], batch.video[:, :-1, -1:])
    assert torch.equal(audio[:, 1:, :2], batch.audio[:, :-1, -2:])
    assert torch.equal(video[:, :, 1:], batch.video)
    assert torch.equal(audio[:, :, 2:], batch.audio)


def test_before_the_first_chunk_it_is_dark_and_silent():
    config = tiny_config(overlap=2)
    video, audio = seen(config, random_batch(config))
    assert torch.equal(video[0, 0, 1], torch.from_numpy(black_frame(config.size)))
    assert (audio[:, 0, :4] == SILENCE).all()
    assert pytest.approx(FEATURES_SILENCE) == SILENCE


def test_what_the_chunk_before_lacks_is_dark_and_silent():
    config = tiny_config(overlap=2)
    batch = random_batch(config)
    batch.video_present[0, 1] = batch.audio_present[1, 1] = False
    video, audio = seen(config, batch)
    assert torch.equal(video[0, 2, 0], torch.from_numpy(black_frame(config.size)))
    assert (audio[1, 2, :4] == SILENCE).all()
    assert torch.equal(video[1, 2, :2], batch.video[1, 1, -2:])
    assert torch.equal(audio[0, 2, :4], batch.audio[0, 1, -4:])


def test_tokens_follow_from_the_frames_that_are_seen():
    model, wide = tiny_model(), tiny_model(overlap=2, tubes=((2, 8, 8),), tube_strides=((2, 8, 8),))
    assert model.video_tubes.tokens == 1 * 2 * 2 + 4
    assert wide.video_tubes.tokens == 3 * 2 * 2 + 4  # tubes of 2 in 6 frames, patches of the first
    assert (model.audio.tokens, wide.audio.tokens) == (2, 3)


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
@pytest.mark.parametrize("presence", PRESENCE)
@torch.no_grad()
def test_content_of_a_missing_modality_does_not_matter(combiner, presence):
    model = tiny_model(combiner=combiner, overlap=2)
    batch = with_presence(random_batch(model.config), presence)
    other = random_batch(model.config, seed=1)
    flags = {"video": batch.video_present[:, :, None, None, None], "audio": batch.audio_present[:, :, None, None]}
    changed = {name: torch.where(flag, getattr(batch, name), getattr(other, name)) for name, flag in flags.items()}
    assert torch.equal(model.encode(batch).h, model.encode(dataclasses.replace(batch, **changed)).h)


@pytest.mark.parametrize("modality", ["video", "audio"])
@torch.no_grad()
def test_the_end_of_the_chunk_before_is_seen_and_its_start_is_not(modality):
    """With a window of one chunk, the past comes through the overlap alone."""
    model = tiny_model(overlap=1, max_chunks=1)
    batch = random_batch(model.config)
    for part, changes in (("start", slice(0, 1)), ("end", slice(-1, None))):
        changed = dataclasses.replace(batch, **{modality: getattr(batch, modality).clone()})
        getattr(changed, modality)[:, 1, changes] = getattr(random_batch(model.config, seed=1), modality)[:, 1, changes]
        a, b = model.encode(batch).x, model.encode(changed).x
        assert torch.equal(a[:, [0, 3]], b[:, [0, 3]])
        assert torch.equal(a[:, 2], b[:, 2]) == (part == "start")


def test_without_overlap_there_is_no_state():
    model = tiny_model()
    assert set(EncoderCombiner(model).init_state(2)) == {"keys_values", "valid"}


@torch.no_grad()
def test_a_stream_that_is_reset_begins_in_the_dark():
    model = tiny_model(overlap=2)
    encoder = EncoderCombiner(model)
    batch = random_batch(model.config)
    chunk = (batch.video[:, 0], batch.audio[:, 0], batch.video_present[:, 0], batch.audio_present[:, 0])
    first, state = encoder(*chunk, encoder.init_state(2))
    assert not any(tensor.any() for tensor in encoder.init_state(2).values())  # zeros, as `reset` sets them
    again, _ = encoder(*chunk, reset(state, torch.tensor([True, False])))
    assert torch.equal(again[0], first[0])
    assert not torch.equal(again[1], first[1])


def test_more_overlap_needs_no_parameter_more():
    counts = {sum(p.numel() for p in tiny_model(overlap=overlap).parameters()) for overlap in (0, 1, 3)}
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlap": 4}, "overlap of 4 frames, expected 0 to 3: a chunk has 4"),
        ({"overlap": -1}, "overlap of -1 frames, expected 0 to 3"),
        ({"overlap": 1, "audio_columns": 6, "audio_patch": (2, 8)}, "1 of 4 frames: no whole number of .* 6 audio"),
    ],
)
def test_an_overlap_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Mirasol(tiny_config(**changes))
