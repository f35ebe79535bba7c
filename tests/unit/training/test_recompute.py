"""Blocks that compute again in the backward pass: the same gradients, fewer tensors kept."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, tiny_model
from torch import Tensor

from mirasol.training.recompute import apply_recompute


def gradients(mode: str, **changes: object) -> dict[str, Tensor]:
    """Of all losses of a tiny model."""
    model = tiny_model(**changes).train()
    apply_recompute(model, mode)
    torch.manual_seed(3)
    losses = model(random_batch(model.config))
    sum(losses[name] for name in ("text", "latent", "video")).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}, {"combiner": "ttm"}, {"cross_hidden": 32}], ids=str)
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_the_gradient_stays_the_same(mode: str, changes: dict[str, object]) -> None:
    expected, found = gradients("none", **changes), gradients(mode, **changes)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_mixed_precision_computes_again_the_casts_of_shared_weights(mode: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = gradients("none"), gradients(mode)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0.1, atol=0.02 * gradient.abs().max().item(), msg=name)


def test_names_stay() -> None:
    model, plain = tiny_model(), tiny_model()
    apply_recompute(model, "full")
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_stream_runs_each_block_once() -> None:
    model, plain = tiny_model(), tiny_model()
    apply_recompute(model, "full")
    batch = random_batch(model.config)
    with torch.no_grad():
        assert torch.equal(model.encode(batch).h, plain.encode(batch).h)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="recompute 'all', expected one of none, selective, full"):
        apply_recompute(tiny_model(), "all")
