"""The optimiser is a function of the model, the settings and the step; never of the phase or of history."""

from __future__ import annotations

import pytest
from support.model import tiny_model

from mirasol.training.config import PhaseConfig
from mirasol.training.optim import build_groups, learning_rate
from mirasol.training.phases import freeze

CONFIG = PhaseConfig(steps=110, warmup=10, lr=1e-3)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.5), (110, 0.0)])
def test_the_rate_warms_up_to_its_peak_and_falls_to_zero(step: int, share: float) -> None:
    assert learning_rate(step, CONFIG) == pytest.approx(share * CONFIG.lr, abs=1e-12)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, PhaseConfig(steps=10, warmup=0, lr=0.5)) == 0.5


def test_matrices_decay_and_norms_biases_and_embeddings_do_not() -> None:
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_groups(model, 0.1)
    decayed = {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}
    plain = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    assert {"text.blocks.0.mlp.up.weight", "text.blocks.0.cross_attention.kv.weight"} <= decayed
    assert {"text.embedding.weight", "text.norm.weight", "text.blocks.0.mlp.up.bias"} <= plain


def test_every_parameter_is_in_one_group() -> None:
    model = tiny_model()
    members = [id(p) for group in build_groups(model, 0.1) for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())


def test_the_groups_are_the_same_in_every_phase() -> None:
    model = tiny_model()
    layouts = []
    for trained in ("audio", "combiner latent", "all"):
        freeze(model, PhaseConfig(trained=trained))
        layouts.append([(g["name"], [id(p) for p in g["params"]]) for g in build_groups(model, 0.1)])
    assert layouts[0] == layouts[1] == layouts[2]
