"""Analytical gradients against numerical ones, in fp64, for every combiner, latent model and loss."""

from __future__ import annotations

import pytest
import torch
from support.model import VARIANTS, tiny_model
from torch.autograd import gradcheck

from mirasol.model.config import LATENTS, Sizes
from mirasol.model.losses import cosine_loss, text_loss

SMALL = Sizes(layers=2, width=4, hidden=4, heads=1, head=4)


def small_model(**changes):
    """A model whose combiner and latent model have a width of 4."""
    sizes = dict.fromkeys(("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "ttm_sizes"), SMALL)
    return tiny_model(dtype=torch.float64, **{**sizes, "num_queries": 2, "max_chunks": 2, **changes})


def random(*shape):
    """Noise that wants a gradient."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize(("combiner", "queries"), VARIANTS)
@pytest.mark.parametrize("missing", [False, True])
def test_combiners(combiner, queries, missing):
    module = small_model(combiner=combiner, queries=queries).combiner
    valid = None
    if missing:
        valid = torch.arange(10) % 3 != torch.tensor([[0], [1], [2]])
        valid[1] = False
    u = random(1, 3, 10, 4)
    weights = tuple(module.parameters())
    names = [name for name, _ in module.named_parameters()]

    def run(u, *weights):
        state = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, state, (u, None if valid is None else valid[None]))[0]

    # the whole Jacobian by the features; by the weights along random directions, or it would take minutes
    assert gradcheck(lambda u: run(u, *weights), (u,))
    assert gradcheck(run, (u, *weights), fast_mode=True)


@pytest.mark.parametrize("latent", LATENTS)
def test_latent_models(latent):
    module = small_model(latent=latent).latent
    assert gradcheck(lambda x: module(x)[0], (random(1, 3, 2, 4),))


def test_masked_losses():
    target, valid = random(3, 2, 4).detach(), torch.tensor([[True], [False], [True]])
    assert gradcheck(lambda h: cosine_loss(h, target, valid), (random(3, 2, 4),))
    logits, weight = random(4, 5), torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    targets, text = torch.tensor([1, 0, 4, 2]), torch.tensor([0, 0, 1, 2])
    assert gradcheck(lambda x: text_loss(x, targets, text, weight, 0.1)[0], (logits,))
