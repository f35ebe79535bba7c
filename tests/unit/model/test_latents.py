"""The latent models of the ablations; the causal one is tested with the whole model."""

from __future__ import annotations

import pytest
import torch
from support import plain
from support.model import random_batch, relative_error, tiny_model

from mirasol.model.latent import mask_features


@torch.no_grad()
def test_bidirectional_equals_a_plain_loop_without_a_mask():
    latent = tiny_model(dtype=torch.float64, latent="bidirectional", max_chunks=2).latent
    x = torch.randn(1, 4, 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens, places = list(x.flatten(0, 2)), [t for t in range(4) for _ in range(3)]
    for layer in latent.transformer.blocks:
        tokens = [plain.block(layer, token, tokens, t, places) for token, t in zip(tokens, places, strict=True)]
    expected = torch.stack([plain.norm(latent.transformer.norm, token) for token in tokens])
    assert relative_error(latent(x)[0].flatten(0, 2), expected) <= 1e-12


@torch.no_grad()
def test_none_hands_x_on_and_has_no_latent_loss():
    model = tiny_model(latent="none", feature_mask=0.9).train()
    batch = random_batch(model.config)
    encoded, losses = model.encode(batch), model(batch)
    assert torch.equal(encoded.h, encoded.x)
    assert list(model.latent.parameters()) == []
    assert losses["latent"] == 0
    assert losses["video"] > 0 and losses["text"] > 0


@pytest.mark.parametrize("latent", ["causal", "bidirectional"])
def test_masking_hides_features_from_the_latent_model_only(latent):
    model = tiny_model(feature_mask=0.5, latent=latent).train()
    batch = random_batch(model.config)
    a, b = model.encode(batch), model.encode(batch)
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.h, b.h)


def test_masking_sets_a_share_of_whole_features_to_zero():
    torch.manual_seed(0)
    masked = (mask_features(torch.ones(50, 40, 8), 0.25) == 0).float()
    assert torch.equal(masked.amin(-1), masked.amax(-1))
    assert masked.mean().item() == pytest.approx(0.25, abs=0.03)
