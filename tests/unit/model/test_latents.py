"""The latent models of the ablations; the causal one is tested with the whole model."""

from __future__ import annotations

import pytest
import torch
from support import plain
from support.model import random_batch, relative_error, tiny_model


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
    model = tiny_model(latent="none").train()
    batch = masked_batch(model)
    encoded, losses = model.encode(batch), model(batch)
    assert torch.equal(encoded.h, encoded.x)
    assert list(model.latent.parameters()) == []
    assert losses["latent"] == 0
    assert losses["video"] > 0 and losses["text"] > 0


@pytest.mark.parametrize("latent", ["causal", "bidirectional"])
def test_masking_hides_features_from_the_latent_model_only(latent):
    model = tiny_model(latent=latent).train()
    batch = masked_batch(model)
    a, b = model.encode(batch), model.encode(random_batch(model.config))
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.h, b.h)
    hidden = a.x * ~batch.masked[..., None]
    assert torch.equal(a.h, model.latent(hidden)[0])


def masked_batch(model):
    batch = random_batch(model.config)
    batch.masked = torch.zeros(*batch.video_present.shape, model.config.num_queries, dtype=torch.bool)
    batch.masked[:, 1, 0] = batch.masked[0, 2] = True
    return batch
