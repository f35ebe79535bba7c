"""Parts of transformers that presets ask for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import TINY, random_batch, tiny_config, tiny_model

from mirasol.model.batch import Waveform, text_targets
from mirasol.model.layers import MLP
from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups


def test_a_gated_mlp():
    torch.manual_seed(0)
    mlp = MLP(dataclasses.replace(TINY, gated=True), 0.0)
    x = torch.randn(5, TINY.width)
    y = mlp.norm(x)
    inner = torch.nn.functional.gelu(y @ mlp.gate.weight.T + mlp.gate.bias) * (y @ mlp.up.weight.T + mlp.up.bias)
    assert torch.allclose(mlp(x), x + inner @ mlp.down.weight.T + mlp.down.bias, atol=1e-6)


def test_cross_attention_in_every_other_layer():
    model = tiny_model(cross_every=2, cross_hidden=40)
    crossing = [block.cross_attention is not None for block in model.text.blocks]
    assert crossing == [False, True]
    names = parameter_groups(model)["cross_attention"]
    assert "text.blocks.1.cross_attention.mlp.up.weight" in names
    model(random_batch(model.config))["text"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if n in names)


@pytest.mark.parametrize("every", [0, 3])
def test_cross_attention_in_no_layer_is_refused(every):
    with pytest.raises(ValueError, match=f"every {every}th of 2 text layers, expected 1 to 2"):
        Mirasol(tiny_config(cross_every=every))


def test_presence_is_looked_up_before_the_batch_moves():
    model = tiny_model()
    batch = random_batch(model.config)
    assert batch.to("cpu").complete is True
    batch.audio_present[0, 1] = False
    moved = batch.to("cpu")
    assert moved.complete is False
    assert torch.equal(model.encode(moved).h, model.encode(batch).h)


def test_a_batch_is_pinned_with_all_that_it_holds(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    batch = random_batch(tiny_config())
    sound = Waveform(*(torch.zeros(1) for _ in range(4)))
    batch = dataclasses.replace(batch, waveform=sound, targets=text_targets(batch.tokens, batch.answer_mask))
    copied = batch.pin_memory()
    held = [*vars(batch).values(), *vars(batch.targets).values(), *vars(sound).values()]
    assert {id(x) for x in pinned} == {id(x) for x in held if isinstance(x, torch.Tensor)}
    assert copied.keys == batch.keys
    assert torch.equal(copied.targets.tokens, batch.targets.tokens)
