"""Eq. 8 and its two backends."""

from __future__ import annotations

import math

import pytest
import torch

from mirasol.model.attention import chunk_causal_attention, chunk_causal_mask


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


@pytest.mark.parametrize("window", [1, 2, 5, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_backends_agree_forward_and_backward(window, masked):
    q, k, v = qkv(torch.float64)
    own = later = None
    if masked:
        own = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.4
        later = own & torch.tensor([True, True, False, True, True])[None, :, None]
        own = own | (torch.arange(4) == 3)
    results = []
    for backend in ("dense", "loop"):
        y = chunk_causal_attention(q, k, v, window, own, later, backend)
        results.append((y, *torch.autograd.grad(y.square().sum(), (q, k, v))))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["dense", "loop"])
def test_gradients_are_right(backend):
    q, k, v = qkv(torch.float64, queries=1, heads=1, chunks=3, keys=2)
    assert torch.autograd.gradcheck(lambda *x: chunk_causal_attention(*x, 2, backend=backend), (q, k, v))


def test_errors_say_what_was_given():
    q, k, v = qkv(torch.float32)
    with pytest.raises(ValueError, match="window of 0 chunks"):
        chunk_causal_attention(q, k, v, 0)
    with pytest.raises(ValueError, match="'flash'"):
        chunk_causal_attention(q, k, v, 2, backend="flash")
    with pytest.raises(ValueError, match="go together"):
        chunk_causal_attention(q, k, v, 2, own_valid=torch.ones(2, 5, 4, dtype=torch.bool))
