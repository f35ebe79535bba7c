"""Attribution: shares that sum to 1, zero on missing content, and the weights of the forward pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.model import PRESENCE, TINY, random_batch, tiny_model, with_presence

from mirasol.model.attribution import _contributions, _log_odds, attribute, recording
from mirasol.model.batch import Batch
from mirasol.model.config import COMBINERS
from mirasol.model.mirasol import Mirasol, join_presence

TEXT = torch.tensor([2, 7, 8, 4, 9, 10])
FIRST = 4  # of six tokens the last two are the answer


def one_clip(model: Mirasol, presence: str = "both", chunks: int = 4, row: int = 0) -> Batch:
    dtype = model.audio.project.weight.dtype
    batch = with_presence(random_batch(model.config, chunks=chunks, dtype=dtype), presence)
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(batch, **{name: value[row : row + 1] for name, value in tensors.items()})


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("presence", [name for name in PRESENCE if name != "nothing"])
@pytest.mark.parametrize("row", [0, 1])
def test_shares_sum_to_one_and_what_is_missing_has_none(combiner: str, presence: str, row: int) -> None:
    model = tiny_model(combiner=combiner)
    batch = one_clip(model, presence, row=row)
    found = attribute(model, batch, TEXT, FIRST)
    torch.testing.assert_close(found.chunks.sum(1), torch.ones(2))
    torch.testing.assert_close(found.features.sum((1, 2)), torch.ones(2))
    assert (found.features >= 0).all()
    there = join_presence(batch.video_present, batch.audio_present, model.video_tubes.tokens, model.audio.tokens)[0]
    assert not found.chunks[:, ~there.any(1)].any(), "exactly 0"
    assert not found.features[:, ~there].any(), "exactly 0"


def test_attention_is_the_one_that_the_pass_used() -> None:
    model = tiny_model(text=dataclasses.replace(TINY, heads=1))  # with one head the mean of the heads is the head
    batch = one_clip(model, "gaps")
    mixed: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for block in model.text.blocks:
        block.cross_attention.out.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0][0]))
        block.cross_attention.register_forward_pre_hook(lambda _, inputs: values.append(inputs[1][1][0, :, 0]))
    with recording(model) as record:
        encoded = model.encode(batch)
        model.logits(TEXT[None, None], encoded.h, encoded.present)
    for weights, value, result in zip(record.cross, values, mixed, strict=True):
        torch.testing.assert_close(weights @ value, result, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_what_counted_is_what_a_small_change_of_it_changes(combiner: str) -> None:
    model = tiny_model(combiner=combiner, dtype=torch.float64)
    batch = one_clip(model)
    chunk, feature = 1, 2

    def log_odds(scale: float) -> float:
        def hook(module: Any, inputs: Any) -> Any:
            u = inputs[0].clone()
            u[:, chunk, feature] *= scale
            return u, *inputs[1:]

        handle = model.combiner.register_forward_pre_hook(hook)
        encoded = model.encode(batch)
        handle.remove()
        p = model.logits(TEXT[None, None, :-1], encoded.h, encoded.present)[0, 0, FIRST - 1].softmax(-1)[TEXT[FIRST]]
        return float((p / (1 - p)).log().detach())

    slope = (log_odds(1 + 1e-4) - log_odds(1 - 1e-4)) / 2e-4
    with torch.enable_grad(), recording(model) as record:
        encoded = model.encode(batch)
        logits = model.logits(TEXT[None, None, :-1], encoded.h, encoded.present)[0, 0, FIRST - 1 :]
        raised = _contributions(_log_odds(logits, TEXT[FIRST:])[0], record)
    assert raised.shape == (4, model.video_tubes.tokens + model.audio.tokens)
    assert raised[chunk, feature] == pytest.approx(max(slope, 0.0), rel=1e-5, abs=1e-9)


def test_looking_changes_nothing_and_leaves_nothing_behind() -> None:
    model = tiny_model()
    batch = one_clip(model)
    before = model.encode(batch).h
    attribute(model, batch, TEXT, FIRST)
    assert torch.equal(model.encode(batch).h, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_frozen_weights_are_no_hindrance() -> None:
    model = tiny_model().requires_grad_(False)
    with torch.no_grad():
        found = attribute(model, one_clip(model), TEXT, FIRST)
    torch.testing.assert_close(found.features.sum((1, 2)), torch.ones(2))


def test_what_comes_after_a_token_has_no_part_in_it() -> None:
    model = tiny_model()
    batch = one_clip(model)
    early, both = (attribute(model, batch, text, FIRST) for text in (TEXT[:5], TEXT))
    torch.testing.assert_close(early.chunks[0], both.chunks[0])
    torch.testing.assert_close(early.features[0], both.features[0])


def test_chunks_that_the_text_model_has_forgotten_get_no_attention() -> None:
    model = tiny_model(max_chunks=2)
    found = attribute(model, one_clip(model, chunks=4), TEXT, FIRST)
    assert not found.chunks[:, :2].any()
    torch.testing.assert_close(found.chunks.sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": TEXT[:4]}, "begins at token 4 of 4"),
        ({"clips": 2}, "2 clips"),
        ({"presence": "nothing"}, "neither video nor audio"),
        ({"training": True}, "in training"),
    ],
)
def test_bad_input_says_what_was_expected(change: dict[str, Any], said: str) -> None:
    model = tiny_model().train(change.get("training", False))
    batch = random_batch(model.config) if "clips" in change else one_clip(model, change.get("presence", "both"))
    with pytest.raises(ValueError, match=said):
        attribute(model, batch, change.get("text", TEXT), FIRST)
