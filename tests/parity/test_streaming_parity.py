"""Step by step equals all at once, and a stream's memory is what the whole clip's window is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import PRESENCE, TINY, random_batch, relative_error, tiny_model, with_presence

from mirasol.model.streaming import EncoderCombiner, Latent, Text, reset

VARIANTS = [("transformer", "pooled"), ("transformer", "last"), ("ttm", "last"), ("ttm", "pooled")]
TOLERANCE = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def stream(model, batch, dtype):
    """x and h of all chunks, one step at a time."""
    encoder, latent = EncoderCombiner(model), Latent(model)
    clips = batch.video.shape[0]
    state, latent_state = encoder.init_state(clips, dtype=dtype), latent.init_state(clips, dtype=dtype)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    xs, hs = [], []
    for t in range(batch.video.shape[1]):
        chunk = (batch.video[:, t], batch.audio[:, t], batch.video_present[:, t], batch.audio_present[:, t])
        x, state = encoder.step(*chunk, state)
        h, latent_state = latent.step(x, latent_state)
        xs.append(x)
        hs.append(h)
    assert {name: tensor.shape for name, tensor in state.items()} == shapes
    return torch.stack(xs, 1), torch.stack(hs, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize(("combiner", "queries"), VARIANTS)
@pytest.mark.parametrize(("chunks", "window"), [(4, 6), (1, 1), (5, 2)])
@torch.no_grad()
def test_streamed_equals_whole(chunks, window, combiner, queries, presence, dtype, tolerance):
    model = tiny_model(dtype=dtype, combiner=combiner, queries=queries, max_chunks=window)
    batch = with_presence(random_batch(model.config, chunks=chunks, dtype=dtype), presence)
    whole = model.encode(batch)
    x, h = stream(model, batch, dtype)
    assert torch.isfinite(h).all()
    assert relative_error(x, whole.x) <= tolerance
    assert relative_error(h, whole.h) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
@pytest.mark.parametrize("overlap", [1, 3])
@torch.no_grad()
def test_streamed_equals_whole_when_chunks_overlap(overlap, combiner, presence, dtype, tolerance):
    model = tiny_model(dtype=dtype, combiner=combiner, overlap=overlap, max_chunks=3)
    batch = with_presence(random_batch(model.config, chunks=5, dtype=dtype), presence)
    whole = model.encode(batch)
    x, h = stream(model, batch, dtype)
    assert relative_error(x, whole.x) <= tolerance
    assert relative_error(h, whole.h) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("chunks", [4, 9])
@torch.no_grad()
def test_text_step_equals_whole(chunks, presence, dtype, tolerance):
    model = tiny_model(dtype=dtype, max_chunks=6)
    batch = with_presence(random_batch(model.config, chunks=chunks, dtype=dtype), presence)
    whole = model.encode(batch)
    expected = model.logits(batch.tokens, whole.h, whole.present)
    slots, combined = model.config.max_chunks, model.config.combined
    memory = torch.zeros(2, slots, *whole.h.shape[2:], dtype=dtype)
    valid = torch.zeros(2, slots, combined, dtype=torch.bool)
    kept = min(chunks, slots)
    memory[:, -kept:] = whole.h[:, -kept:]
    valid[:, -kept:] = whole.present[:, -kept:, None]
    text = Text(model)
    state = text.init_state(2, dtype=dtype)
    logits = []
    for position in range(batch.tokens.shape[2]):
        one, state = text.step(batch.tokens[:, 1, position], state, memory.flatten(1, 2), valid.flatten(1))
        logits.append(one)
    assert relative_error(torch.stack(logits, 1), expected[:, 1]) <= tolerance


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
@torch.no_grad()
def test_reset_touches_only_its_rows(combiner):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    encoder = EncoderCombiner(model)
    chunk = (batch.video[:, 0], batch.audio[:, 0], batch.video_present[:, 0], batch.audio_present[:, 0])
    state = encoder.init_state(2)
    for _ in range(3):
        _, state = encoder.step(*chunk, state)
    cleared = reset(state, torch.tensor([True, False]))
    fresh = encoder.init_state(2)
    for name, tensor in cleared.items():
        assert torch.equal(tensor[0], fresh[name][0])
        assert torch.equal(tensor[1], state[name][1])


@torch.no_grad()
def test_a_long_stream_forgets_what_left_the_window():
    one_layer = dataclasses.replace(TINY, layers=1)
    model = tiny_model(max_chunks=2, combiner_sizes=one_layer, latent_sizes=one_layer)
    batch = random_batch(model.config, chunks=5)
    other = random_batch(model.config, chunks=5, seed=1)
    other.video[:, 2:], other.audio[:, 2:] = batch.video[:, 2:], batch.audio[:, 2:]
    a, b = model.encode(batch), model.encode(other)
    # one layer of window 2 in the combiner and one in the latent model: h_4 reaches back to chunk 2
    assert not torch.equal(a.h[:, 3], b.h[:, 3])
    assert torch.equal(a.h[:, 4], b.h[:, 4])
