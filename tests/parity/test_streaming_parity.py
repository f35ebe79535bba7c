"""Step by step equals all at once, and a stream's memory equals the window of the whole clip."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load, save
from support.model import PRESENCE, TINY, VARIANTS, random_batch, relative_error, tiny_model, with_presence

from mirasol.model.config import COMBINERS
from mirasol.model.streaming import EncoderCombiner, Latent, Text, reset

STREAMING_LATENTS = ("causal", "none")
TOLERANCE = [(torch.float32, 1e-6), (torch.float64, 1e-12)]
SHAPES = [(4, 6, 4), (1, 1, 8), (5, 2, 4)]  # T, R, K


def chunk_of(batch, t):
    """The inputs of a step."""
    return batch.video[:, t], batch.audio[:, t], batch.video_present[:, t], batch.audio_present[:, t]


def stream(model, batch, dtype=torch.float32):
    """x and h of all chunks, one step at a time."""
    encoder, latent = EncoderCombiner(model), Latent(model)
    clips = batch.video.shape[0]
    state, latent_state = encoder.init_state(clips, dtype=dtype), latent.init_state(clips, dtype=dtype)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    xs, hs = [], []
    for t in range(batch.video.shape[1]):
        x, state = encoder(*chunk_of(batch, t), state)
        h, latent_state = latent(x, latent_state)
        xs.append(x)
        hs.append(h)
    assert {name: tensor.shape for name, tensor in state.items()} == shapes
    return torch.stack(xs, 1), torch.stack(hs, 1)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("latent", STREAMING_LATENTS)
@pytest.mark.parametrize(("combiner", "queries"), VARIANTS)
@torch.no_grad()
def test_streamed_equals_whole(combiner, queries, latent, presence, dtype, tolerance):
    for chunks, window, frames in SHAPES:
        sizes = {"frames_per_chunk": frames, "audio_columns": 2 * frames, "max_chunks": window}
        model = tiny_model(dtype=dtype, combiner=combiner, queries=queries, latent=latent, **sizes)
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
    slots, queries = model.config.max_chunks, model.config.num_queries
    memory = torch.zeros(2, slots, *whole.h.shape[2:], dtype=dtype)
    valid = torch.zeros(2, slots, queries, dtype=torch.bool)
    kept = min(chunks, slots)
    memory[:, -kept:] = whole.h[:, -kept:]
    valid[:, -kept:] = whole.present[:, -kept:, None]
    text = Text(model)
    state = text.init_state(2, dtype=dtype)
    logits = []
    for position in range(batch.tokens.shape[2]):
        one, state = text(batch.tokens[:, 1, position], memory.flatten(1, 2), valid.flatten(1), state)
        logits.append(one)
    assert relative_error(torch.stack(logits, 1), expected[:, 1]) <= tolerance


def states_after(model, batch, chunks):
    """The states of encoder-combiner, latent model and text model after some chunks and as many tokens."""
    encoder, latent, text = EncoderCombiner(model), Latent(model), Text(model)
    clips, slots = batch.video.shape[0], model.config.max_chunks * model.config.num_queries
    states = [part.init_state(clips) for part in (encoder, latent, text)]
    memory = torch.randn(clips, slots, model.config.latent_sizes.width, generator=torch.Generator().manual_seed(0))
    for t in range(chunks):
        x, states[0] = encoder(*chunk_of(batch, t), states[0])
        _, states[1] = latent(x, states[1])
        _, states[2] = text(batch.tokens[:, 0, t], memory, torch.ones(clips, slots, dtype=torch.bool), states[2])
    return states


@pytest.mark.parametrize("combiner", COMBINERS)
@torch.no_grad()
def test_reset_touches_only_its_rows(combiner):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    for before, after in zip(states_after(model, batch, 0), states_after(model, batch, 3), strict=True):
        cleared = reset(after, torch.tensor([True, False]))
        assert set(cleared) == set(before)
        for name, tensor in cleared.items():
            assert torch.equal(tensor[0], before[name][0]), name
            assert torch.equal(tensor[1], after[name][1]), name


@pytest.mark.parametrize("combiner", COMBINERS)
@torch.no_grad()
def test_states_survive_safetensors_bit_for_bit(combiner):
    model = tiny_model(combiner=combiner, max_chunks=3)
    batch = random_batch(model.config)
    states = states_after(model, batch, 3)
    again = [load(save(state)) for state in states]
    for state, loaded in zip(states, again, strict=True):
        assert {name: tensor.dtype for name, tensor in loaded.items()} == {n: t.dtype for n, t in state.items()}
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    outputs = []
    for encoder_state, latent_state, _ in (states, again):
        x, _ = EncoderCombiner(model)(*chunk_of(batch, 3), encoder_state)
        outputs.append(Latent(model)(x, latent_state)[0])
    assert torch.equal(*outputs)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("combiner", COMBINERS)
@torch.no_grad()
def test_a_question_about_a_forgotten_chunk(combiner, layers):
    """An answer does not depend on a chunk that has left every window; TTM's memory may still hold it."""
    sizes, chunks = dataclasses.replace(TINY, layers=layers), 7
    model = tiny_model(combiner=combiner, max_chunks=2, combiner_sizes=sizes, latent_sizes=sizes)
    # Each layer of the combiner and of the latent model looks R-1 chunks back, and so does the text model.
    reach = (layers * (1 if combiner == "concat" else 2) + 1) * (2 - 1)
    batch = random_batch(model.config, chunks=chunks)
    encoded = model.encode(batch)
    logits = model.logits(batch.tokens, encoded.h, encoded.present)
    for age in range(chunks):
        other = dataclasses.replace(batch, video=batch.video.clone())
        other.video[:, -1 - age] = 255 - other.video[:, -1 - age]
        encoded = model.encode(other)
        same = torch.equal(logits, model.logits(batch.tokens, encoded.h, encoded.present))
        assert same == (age > reach and combiner != "ttm"), age
