"""Transformer, CLS, Perceiver and concat equal plain loops over the present tokens."""

from __future__ import annotations

import pytest
import torch
from support import plain
from support.model import relative_error, tiny_model

CHUNKS, FEATURES, WINDOW, COMBINED = 3, 10, 2, 3
SEQUENCES = {  # combiner and queries -> the module that makes the m added features, and the blocks
    ("transformer", "pooled"): ("pooled", "transformer"),
    ("cls", "last"): ("first", "transformer"),
    ("perceiver", "last"): ("first", "resampler"),
    ("perceiver", "pooled"): ("first", "resampler"),
}


def inputs(missing):
    """Features of one clip in fp64 and which of them are there; with ``missing``, a chunk has nothing."""
    random = torch.Generator().manual_seed(0)
    u = torch.randn(1, CHUNKS, FEATURES, 24, dtype=torch.float64, generator=random)
    valid = torch.rand(1, CHUNKS, FEATURES, generator=random) > (0.4 if missing else -1)
    valid[:, 1] &= not missing
    return u, valid


def plainly(transformer, tokens, there, resample):
    """x of each chunk from its tokens; later chunks do not look at those for which ``there`` is False."""
    for layer in transformer.blocks:
        after = []
        for t, own in enumerate(tokens):
            past = [s for s in range(max(0, t - WINDOW + 1), t) if there[s]]
            seen = [token for s in past for token in tokens[s]] + own
            places = [s for s in past for _ in tokens[s]] + [t] * len(own)
            fixed = len(own) - COMBINED if resample else 0
            after.append(own[:fixed] + [plain.block(layer, token, seen, t, places) for token in own[fixed:]])
        tokens = after
    return [torch.stack([plain.norm(transformer.norm, token) for token in own[-COMBINED:]]) for own in tokens]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("combiner", "queries"), SEQUENCES)
@torch.no_grad()
def test_equals_a_plain_loop(combiner, queries, missing):
    model = tiny_model(dtype=torch.float64, combiner=combiner, queries=queries, max_chunks=WINDOW)
    start, blocks = (getattr(model.combiner, name) for name in SEQUENCES[combiner, queries])
    u, valid = inputs(missing)
    added = start(torch.where(valid[..., None], u, 0.0))[0]
    tokens = [list(u[0, t][valid[0, t]]) + list(added[t]) for t in range(CHUNKS)]
    there = [bool(valid[0, t].any()) for t in range(CHUNKS)]
    expected = plainly(blocks, tokens, there, resample=combiner == "perceiver")
    ours, _ = model.combiner(u, valid if missing else None)
    assert relative_error(ours[0], torch.stack(expected)) <= 1e-12


@torch.no_grad()
def test_the_last_m_features_of_the_sequence_leave_the_transformer():
    model = tiny_model(dtype=torch.float64, queries="last", max_chunks=WINDOW)
    u, _ = inputs(False)
    tokens = [list(u[0, t]) for t in range(CHUNKS)]
    expected = plainly(model.combiner.transformer, tokens, [True] * CHUNKS, resample=False)
    assert relative_error(model.combiner(u, None)[0][0], torch.stack(expected)) <= 1e-12


def test_concat_with_as_many_features_is_the_concatenation():
    combiner = tiny_model(dtype=torch.float64, combiner="concat", num_queries=FEATURES).combiner
    u, _ = inputs(False)
    assert torch.equal(combiner(u, None)[0], u)
    assert list(combiner.parameters()) == []


def test_concat_gives_means_of_runs_of_what_is_there():
    combiner = tiny_model(dtype=torch.float64, combiner="concat").combiner
    u, valid = inputs(True)
    x, _ = combiner(u, valid)
    for t in range(CHUNKS):
        for run, (first, end) in enumerate(((0, 4), (4, 7), (7, 10))):
            kept = u[0, t, first:end][valid[0, t, first:end]]
            expected = kept.mean(0) if len(kept) else torch.zeros(24, dtype=torch.float64)
            assert torch.allclose(x[0, t, run], expected, rtol=1e-12, atol=1e-12)


def test_concat_sees_its_own_chunk_alone():
    combiner = tiny_model(dtype=torch.float64, combiner="concat").combiner
    u, _ = inputs(False)
    other = u.clone()
    other[:, 0] += 1
    assert torch.equal(combiner(u, None)[0][:, 1:], combiner(other, None)[0][:, 1:])
    assert combiner.init_state(2, "cpu", torch.float32) == {}
