"""A step of training: its randomness and its losses."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.model import random_batch, tiny_model

from mirasol.training.config import PhaseConfig
from mirasol.training.module import PhaseModule, reseed, step_seed


def test_the_randomness_of_a_step_follows_from_seed_step_and_part() -> None:
    seeds = {step_seed(*numbers) for numbers in itertools.product(range(3), repeat=3)}
    assert len(seeds) == 27
    assert step_seed(1, 2, 0) == step_seed(1, 2, 0)


def test_reseeding_gives_the_same_masks_whatever_was_drawn_before() -> None:
    cpu = torch.device("cpu")
    reseed(5, cpu)
    first = torch.rand(4)
    torch.rand(3)
    reseed(5, cpu)
    assert torch.equal(torch.rand(4), first)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    config = PhaseConfig(text_weight=10.0, latent_weight=0.5, video_weight=0.25)
    module = PhaseModule(tiny_model(), config, seed=1, fused=False)
    parts = {"text": torch.tensor(1.0), "latent": torch.tensor(2.0), "video": torch.tensor(4.0)}
    assert module.objective.weighted(parts).item() == pytest.approx(12.0)


def test_the_audio_weight_counts_where_sound_is_reconstructed() -> None:
    config = PhaseConfig(text_weight=1.0, latent_weight=0.0, video_weight=0.0, audio_weight=0.5)
    module = PhaseModule(tiny_model(audio_reconstruction=True), config, seed=1, fused=False)
    losses = module.model(random_batch(module.model.config))
    assert module.objective.weighted(losses).item() == pytest.approx((losses["text"] + losses["audio"] / 2).item())


def test_gradients_are_scaled_to_the_bound_and_their_norm_is_kept() -> None:
    module = PhaseModule(tiny_model(), PhaseConfig(clip_norm=0.5), seed=1, fused=False)
    optimizer = module.configure_optimizers()
    (module.model(random_batch(module.model.config))["text"] * 100).backward()
    module.on_before_optimizer_step(optimizer)
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]))
    assert module.figures["grad_norm"] > 0.5
    assert norm.item() == pytest.approx(0.5, rel=1e-4)
