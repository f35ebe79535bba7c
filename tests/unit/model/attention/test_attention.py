"""Eq. 8 and its three backends."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from support.model import random_batch, tiny_model, with_presence
from torch.nn.attention.flex_attention import create_block_mask

from mirasol.model import chunk_transformer
from mirasol.model.attention.chunk_causal import chunk_causal_attention, chunk_causal_mask
from mirasol.model.attention.flex import KEPT, block_mask
from mirasol.model.attention.loop import KEYS
from mirasol.model.chunk_transformer import use_backend

CPU = torch.device("cpu")


def test_mask_is_equation_8():
    chunks, per_chunk = 5, 3
    features = chunks * per_chunk
    mask = chunk_causal_mask(chunks, per_chunk, per_chunk, window=chunks)
    for i in range(1, features + 1):
        t = math.ceil(i * chunks / features)  # the chunk of feature i
        for j in range(1, features + 1):
            assert mask[i - 1, j - 1] == (j <= t * features / chunks)


def qkv(dtype, queries=2, heads=2, chunks=5, keys=4):
    g = torch.Generator().manual_seed(3)
    q = torch.randn(2, chunks, queries, heads, 6, generator=g, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(2, chunks, keys, heads, 6, generator=g, dtype=dtype, requires_grad=True) for _ in range(2))
    return q, k, v


def validity(chunks, keys=4):
    """Keys that are missing here and there, and a chunk that holds nothing for later ones; each query has one."""
    own = torch.rand(2, chunks, keys, generator=torch.Generator().manual_seed(0)) > 0.4
    later = own & (torch.arange(chunks) != 2)[None, :, None]
    return own | (torch.arange(keys) == keys - 1), later


@pytest.mark.parametrize(("chunks", "window"), [(1, 1), (1, 4), (5, 1), (5, 2), (5, 5), (5, 9)])
@pytest.mark.parametrize("masked", [False, True])
def test_loop_is_the_dense_mask_forward_and_backward(chunks, window, masked):
    tensors = qkv(torch.float64, chunks=chunks)
    seen = validity(chunks) if masked else (None, None)
    results = []
    for backend in ("dense", "loop"):
        y = chunk_causal_attention(*tensors, window, *seen, backend)
        results.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_loop_is_the_dense_mask_where_the_backward_pass_goes_piece_by_piece(masked):
    keys = KEYS // 2 - 56  # two chunks in a piece, three pieces
    tensors = qkv(torch.float64, heads=1, keys=keys)
    seen = validity(5, keys) if masked else (None, None)
    grads = []
    for backend in ("dense", "loop"):
        y = chunk_causal_attention(*tensors, 5, *seen, backend)
        grads.append(torch.autograd.grad(y.square().sum(), tensors))
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("chunks", "window"), [(1, 1), (5, 1), (5, 2), (5, 9)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_flex_is_the_dense_mask(chunks, window, masked):
    tensors = [x.detach() for x in qkv(torch.float64, chunks=chunks)]
    seen = validity(chunks) if masked else (None, None)
    dense = chunk_causal_attention(*tensors, window, *seen, "dense")
    assert torch.allclose(chunk_causal_attention(*tensors, window, *seen, "flex"), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("chunks", "queries", "keys", "window"), [(1, 9, 9, 1), (7, 53, 53, 3), (6, 9, 200, 6)])
def test_blocks_are_those_that_evaluating_every_entry_finds(chunks, queries, keys, window):
    ours = block_mask(chunks, queries, keys, window, CPU)
    theirs = create_block_mask(ours.mask_mod, None, None, chunks * queries, chunks * keys, device="cpu")
    assert ours.shape == theirs.shape
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.to_dense(), theirs.to_dense())


def test_block_masks_are_kept_and_their_number_is_bounded():
    assert block_mask(4, 9, 9, 4, CPU) is block_mask(4, 9, 9, 4, CPU)
    for chunks in range(1, 2 * KEPT):
        block_mask(chunks, 1, 1, 1, CPU)
    assert block_mask.cache_info().currsize == KEPT


@torch.no_grad()
def test_what_is_compiled_around_flex_takes_the_mask_that_it_is_given():
    tensors = [x.detach() for x in qkv(torch.float64)]
    graphs = []

    def look(graph, inputs):
        graphs.append(graph.print_readable(print_output=False))
        return graph

    attention = partial(chunk_causal_attention, window=2, backend="flex", blocks=block_mask(5, 2, 4, 2, CPU))
    compiled = torch.compile(lambda *x: attention(*x), backend=look, fullgraph=True)
    dense = chunk_causal_attention(*tensors, 2, backend="dense")
    assert torch.allclose(compiled(*tensors), dense, rtol=1e-12, atol=1e-12)
    assert len(graphs) == 1
    assert "arange" not in graphs[0]


@pytest.mark.parametrize("backend", ["dense", "loop"])
def test_gradients_are_right(backend):
    q, k, v = qkv(torch.float64, queries=1, heads=1, chunks=3, keys=2)
    assert torch.autograd.gradcheck(lambda *x: chunk_causal_attention(*x, 2, backend=backend), (q, k, v))


def test_mixed_types_are_those_of_autocast():
    q, k, v = qkv(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = chunk_causal_attention(q, k, v.bfloat16(), 5, backend="loop")
        assert y.dtype == torch.bfloat16
        assert torch.equal(y, chunk_causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 5, backend="loop"))


@pytest.mark.parametrize("backend", ["dense", "loop", "flex"])
@pytest.mark.parametrize("queries", ["last", "pooled"])
@torch.no_grad()
def test_last_combiner_layer_computes_only_what_leaves(monkeypatch, backend, queries):
    model = tiny_model(queries=queries)
    seen = []

    def counting(q, *others, **choices):
        seen.append(q.shape[2])
        return chunk_causal_attention(q, *others, **choices)

    monkeypatch.setattr(chunk_transformer, "chunk_causal_attention", counting)
    use_backend(model, backend)
    model.encode(random_batch(model.config))
    layers, combined = model.config.combiner_sizes.layers, model.config.combined
    assert seen[layers - 1] == combined
    assert min(seen[: layers - 1]) > combined


@pytest.mark.parametrize("backend", ["dense", "flex"])
@torch.no_grad()
def test_a_model_gives_the_same_with_every_backend(backend):
    model = tiny_model(dtype=torch.float64)
    batch = with_presence(random_batch(model.config, dtype=torch.float64), "gaps")
    expected = model.encode(batch).h
    use_backend(model, backend)
    assert torch.allclose(model.encode(batch).h, expected, rtol=1e-11, atol=1e-11)


def test_the_backend_is_no_part_of_the_weights():
    model = tiny_model()
    before = model.state_dict().keys(), model.config
    use_backend(model, "dense")
    assert (model.state_dict().keys(), model.config) == before


def test_errors_say_what_was_given():
    q, k, v = qkv(torch.float32)
    with pytest.raises(ValueError, match="window of 0 chunks"):
        chunk_causal_attention(q, k, v, 0)
    with pytest.raises(ValueError, match="'flash'"):
        chunk_causal_attention(q, k, v, 2, backend="flash")
    with pytest.raises(ValueError, match="'flash'"):
        use_backend(tiny_model(), "flash")
    with pytest.raises(ValueError, match="'flex' has no backward pass on a CPU"):
        chunk_causal_attention(q, k, v, 2, backend="flex")
    with pytest.raises(ValueError, match="go together"):
        chunk_causal_attention(q, k, v, 2, own_valid=torch.ones(2, 5, 4, dtype=torch.bool))
