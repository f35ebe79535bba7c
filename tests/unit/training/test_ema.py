"""The moving average of the weights: its formula, its exchange with the weights, and that runs resume with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import train
from torch import nn

from mirasol.training.ema import Ema


def linear(value: float) -> nn.Linear:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, value)
    return model


def test_the_average_keeps_its_share_of_itself_and_less_at_the_start() -> None:
    model = linear(1.0)
    ema = Ema(model, 0.5)
    ema.update(0)
    nn.init.constant_(model.weight, 3.0)
    ema.update(1)  # keeps 2 / 11
    assert ema.averages["weight"].mean().item() == pytest.approx(1.0 * 2 / 11 + 3.0 * 9 / 11)
    ema.averages["weight"].fill_(1.0)
    ema.update(1000)  # keeps 0.5
    assert ema.averages["weight"].mean().item() == pytest.approx(2.0)


def test_frozen_weights_have_no_average() -> None:
    model = linear(1.0)
    model.bias.requires_grad_(False)
    ema = Ema(model, 0.5)
    ema.update(0)
    assert list(ema.averages) == ["weight"]


def test_the_model_has_the_averages_for_a_while() -> None:
    model = linear(1.0)
    ema = Ema(model, 0.5)
    ema.update(0)
    nn.init.constant_(model.weight, 3.0)
    with ema.applied():
        assert model.weight.mean().item() == 1.0
    assert model.weight.mean().item() == 3.0


def test_a_state_restores_the_averages() -> None:
    ema, other = Ema(linear(1.0), 0.5), Ema(linear(2.0), 0.5)
    ema.update(0)
    other.restore(ema.state("model."), "model.")
    assert torch.equal(other.averages["weight"], ema.averages["weight"])


def weights(project: Path) -> bytes:
    return (project / "build" / "finetune" / "weights.safetensors").read_bytes()


def test_the_average_is_exported_and_survives_a_kill(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world, tmp_path / "plain")
    train(world, tmp_path / "average", ema=0.9)
    assert weights(tmp_path / "average") != weights(tmp_path / "plain")
    real, left = torch.save, [1]

    def once(value: Any, file: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("killed")
        real(value, file)

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", once)
        with pytest.raises(RuntimeError, match="killed"):
            train(world, tmp_path / "killed", ema=0.9)
    train(world, tmp_path / "killed", ema=0.9)
    assert weights(tmp_path / "killed") == weights(tmp_path / "average")
