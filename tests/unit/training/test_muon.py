"""Muon moves matrices along orthogonal ones, and leaves the rest to AdamW."""

from __future__ import annotations

import pytest
import torch
from support.model import tiny_model

from mirasol.training.config import PhaseConfig
from mirasol.training.muon import SCALE, Muon, orthogonal
from mirasol.training.optim import build_groups, build_optimizer


@pytest.mark.parametrize("shape", [(5, 12, 12), (3, 12, 48)])
def test_singular_values_come_near_1_and_directions_stay(shape: tuple[int, ...]) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(noise, full_matrices=False)
    found = orthogonal(u @ torch.diag(torch.linspace(0.1, 1.0, shape[1])) @ v)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.flatten(1), (u @ v).flatten(1)).min() > 0.95


@pytest.mark.parametrize("width", [1, 4])
def test_small_singular_values_come_near_1_too(width: int) -> None:
    values = torch.logspace(-2.5, 0, 40, dtype=torch.float64)
    values[:-1] *= (1 / values[:-1].norm()) * 0.05  # beside one that outweighs them, as in a gradient
    wide = torch.diag_embed(values).repeat(1, width)[None] / width**0.5
    found = torch.linalg.svdvals(orthogonal(wide))[0]
    reached = (values / values.norm()).flip(0) > 0.003
    assert reached.sum() > 5
    assert found[reached].min() > 0.78 and found[reached].max() < 1.21


def test_a_wide_matrix_is_treated_as_its_gram_matrix_says() -> None:
    wide = torch.randn(2, 8, 40, dtype=torch.float64)
    u, s, v = torch.linalg.svd(wide, full_matrices=False)
    square = orthogonal(torch.diag_embed(s))  # the same singular values, by the other way
    torch.testing.assert_close(orthogonal(wide), u @ square @ v, rtol=1e-6, atol=1e-6)


def test_a_step_has_the_size_of_one_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.zeros(16, 64))
    optimizer = Muon([{"params": [weight], "matrices": 1, "weight_decay": 0.0}], lr=0.1)
    weight.grad = torch.randn(16, 64)
    optimizer.step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.1 * SCALE, rel=0.2)


def test_matrices_stacked_in_one_weight_move_by_themselves() -> None:
    grad = torch.randn(24, 8)
    stacked, alone = torch.nn.Parameter(torch.zeros(24, 8)), torch.nn.Parameter(torch.zeros(8, 8))
    for weight, part, count in ((stacked, grad, 3), (alone, grad[8:16], 1)):
        weight.grad = part.clone()
        Muon([{"params": [weight], "matrices": count, "weight_decay": 0.0}], lr=0.1).step()
    torch.testing.assert_close(stacked[8:16], alone)


def test_vectors_and_embeddings_move_as_by_adamw_and_frozen_parts_stay() -> None:
    results = []
    for optimizer in ("muon", "adamw"):
        model = tiny_model()
        model.vit.requires_grad_(False)
        opt = build_optimizer(model, PhaseConfig(optimizer=optimizer, lr=0.01), fused=False)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
        opt.step()
        results.append(model.state_dict())
    ours, theirs, start = *results, tiny_model().state_dict()
    plain = {id(p) for g in build_groups(model, 0.01) if not g["matrices"] for p in g["params"]}
    for name, parameter in model.named_parameters():
        if name.startswith("vit."):
            assert torch.equal(ours[name], start[name])
        elif id(parameter) in plain:
            assert torch.equal(ours[name], theirs[name])


def test_its_state_survives_a_checkpoint() -> None:
    def trained(resume: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(4, 6))
        groups = lambda: [{"params": [weight], "matrices": 1, "weight_decay": 0.1}]  # noqa: E731
        optimizer = Muon(groups(), lr=0.1)
        for step in range(4):
            if resume and step == 2:
                state, optimizer = optimizer.state_dict(), Muon(groups(), lr=0.1)
                optimizer.load_state_dict(state)
            weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        return weight.detach().clone()

    assert torch.equal(trained(resume=False), trained(resume=True))
