"""A training step on a GPU never waits for the host."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import random_batch, tiny_config, with_presence

from mirasol.model.batch import Batch, text_targets
from mirasol.model.config import Sizes
from mirasol.model.losses import loss_counts
from mirasol.model.mirasol import Mirasol

WIDE = Sizes(layers=2, width=32, hidden=64, heads=2, head=16)  # wide enough for FlexAttention


@pytest.mark.gpu
@pytest.mark.parametrize("presence", ["both", "gaps"])
@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
def test_a_step_does_not_synchronise(combiner: str, presence: str) -> None:
    sizes = dict.fromkeys(("combiner_sizes", "latent_sizes", "ttm_sizes"), WIDE)
    model = Mirasol(tiny_config(combiner=combiner, **sizes)).train().cuda()
    batch = with_presence(random_batch(model.config), presence)
    batch = dataclasses.replace(batch, targets=text_targets(batch.tokens, batch.answer_mask)).pin_memory()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(given: Batch) -> None:
        moved = given.to("cuda")
        losses = model(moved, totals=loss_counts(moved))
        torch.stack([losses[name] for name in ("text", "latent", "video")]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(batch)  # compiles, and keeps block masks
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
