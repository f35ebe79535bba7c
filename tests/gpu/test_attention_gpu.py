"""FlexAttention, compiled on the GPU, is the dense mask; and a model trains with it."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, relative_error, tiny_config

from mirasol.model.attention.chunk_causal import chunk_causal_attention
from mirasol.model.attention.visible import Visible
from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import Sizes
from mirasol.model.mirasol import Mirasol

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("chunks", "queries", "window"), [(1, 53, 1), (5, 53, 2), (5, 9, 9), (4, 200, 4)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("head", [24, 64])
def test_flex_is_the_dense_mask_forward_and_backward(chunks, queries, window, masked, head, dtype, tolerance):
    g = torch.Generator("cuda").manual_seed(0)
    q = torch.randn(2, chunks, queries, 4, head, generator=g, device="cuda", requires_grad=True)
    k, v = (torch.randn(2, chunks, 200, 4, head, generator=g, device="cuda", requires_grad=True) for _ in range(2))
    grad = torch.randn(2, chunks, queries, 4, head, generator=g, device="cuda")
    seen = None
    if masked:
        own = torch.rand(2, chunks, 200, generator=g, device="cuda") > 0.4
        later = own & (torch.arange(chunks, device="cuda") != 2)[None, :, None]
        seen = Visible(own | (torch.arange(200, device="cuda") == 199), later)
    exact = chunk_causal_attention(q, k, v, window, seen, "dense")
    expected = (exact, *torch.autograd.grad(exact, (q, k, v), grad))
    cast = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    y = chunk_causal_attention(*cast, window, seen, "flex")
    for ours, theirs in zip((y, *torch.autograd.grad(y, cast, grad.to(dtype))), expected, strict=True):
        assert relative_error(ours.float(), theirs) < tolerance


@pytest.mark.parametrize("backend", ["auto", "flex", "loop"])
def test_a_model_trains_under_autocast(backend):
    sizes = Sizes(layers=2, width=32, hidden=64, heads=2, head=16)
    torch.manual_seed(0)
    model = Mirasol(tiny_config(combiner_sizes=sizes, latent_sizes=sizes)).cuda()
    use_backend(model, backend)
    batch = random_batch(model.config).to("cuda")
    exact = model(batch)["text"].item()
    with torch.autocast("cuda", torch.bfloat16):
        losses = model(batch)
    (losses["text"] + losses["latent"] + losses["video"]).backward()
    assert abs(losses["text"].item() - exact) < 0.05
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
