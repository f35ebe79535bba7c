"""torch.compile and bf16 autocast train as eager fp32 does: loss curves of 50 steps on one batch."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch
from support.model import random_batch, tiny_config

from mirasol.model.mirasol import Mirasol

STEPS = 50
COMPILED = 1e-5  # of a loss, relative: rounding, which training makes larger
BF16 = 1e-2  # 8 bits of mantissa: 0.4 % in each product


@functools.cache
def curve(combiner: str, compiled: bool = False, bf16: bool = False) -> torch.Tensor:
    """The loss at each step."""
    torch.manual_seed(0)
    model = Mirasol(tiny_config(combiner=combiner)).train()
    call = torch.compile(model) if compiled else model
    batch = random_batch(model.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            parts = call(batch)
        loss = parts["text"] + parts["latent"] + parts["video"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest relative difference of two curves, the second of which has learnt something."""
    assert theirs[-1] < 0.7 * theirs[0]
    return float(((ours - theirs) / theirs).abs().max())


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
def test_bf16_autocast_learns_the_same(combiner):
    assert apart(curve(combiner, bf16=True), curve(combiner)) < BF16


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(("combiner", "bf16"), [("transformer", False), ("ttm", False), ("transformer", True)])
def test_compiled_learns_the_same(combiner, bf16):
    assert apart(curve(combiner, compiled=True, bf16=bf16), curve(combiner)) < (BF16 if bf16 else COMPILED)
