"""Accuracy while training: exact answers under teacher forcing, by family."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import random_batch, tiny_model

from mirasol.model.batch import Batch
from mirasol.training.validation import Validation, flat, forgotten, score_texts


def with_answers_of(model: torch.nn.Module, batch: Batch) -> Batch:
    """The batch with the model's own most likely answers for its first text, so that this one is right."""
    tokens = batch.tokens.clone()
    for position in torch.nonzero(batch.answer_mask[0, 0]).flatten().tolist():
        encoded = model.encode(batch)
        tokens[:, 0, position] = model.logits(tokens, encoded.h, encoded.present)[:, 0, position - 1].argmax(-1)
    return dataclasses.replace(batch, tokens=tokens)


def test_an_answer_is_right_when_all_its_tokens_are_the_most_likely() -> None:
    model = tiny_model()
    with torch.no_grad():
        batch = with_answers_of(model, random_batch(model.config))
        batch.tokens[0, 1, -1] = (batch.tokens[0, 1, -1] + 1) % model.config.vocabulary
        encoded = model.encode(batch)
        best = model.logits(batch.tokens, encoded.h, encoded.present)[:, :, :-1].argmax(-1)
        expected = ((best == batch.tokens[:, :, 1:]) | ~batch.answer_mask[:, :, 1:]).all(-1)
        _, right = score_texts(model, batch)
    assert right[:, 0].all()
    assert torch.equal(right, expected)


def test_the_loss_of_a_text_is_the_models() -> None:
    model = tiny_model()
    batch = random_batch(model.config)
    with torch.no_grad():
        losses, _ = score_texts(model, batch)
        expected = model(batch)["text_each"]
    torch.testing.assert_close(losses, expected)


def test_padding_is_not_counted_and_families_are_kept_apart() -> None:
    table = torch.zeros(2, 3, dtype=torch.float64)
    batch = random_batch(tiny_model().config, clips=2, texts=2)
    batch.example_ids = [["a", "b"], ["c", ""]]
    validation = Validation(lambda rank, world: [], {"a": "heard", "b": "seen", "c": "seen"})
    losses, right = torch.tensor([[1.0, 2.0], [4.0, 9.0]]), torch.tensor([[True, False], [True, True]])
    validation._count(table, batch, losses, right)
    figures = validation._figures(table.tolist())
    assert figures["families"] == {
        "heard": {"exact_match": 1.0, "text": 1.0, "n": 1},
        "seen": {"exact_match": 0.5, "text": 3.0, "n": 2},
    }
    assert figures["exact_match"] == pytest.approx(2 / 3)
    assert figures["text"] == pytest.approx(7 / 3)


def test_tasks_of_phases_before_are_scored_by_themselves() -> None:
    batch = random_batch(tiny_model().config, clips=2, texts=1)
    batch.example_ids = [["a"], ["b"]]
    validation = Validation(lambda rank, world: [], {"a": "qa"}, {"b": "caption"})
    table = torch.zeros(2, 3, dtype=torch.float64)
    validation._count(table, batch, torch.tensor([[1.0], [6.0]]), torch.tensor([[True], [False]]))
    figures = validation._figures(table.tolist())
    assert (figures["exact_match"], figures["text"], figures["n"]) == (1.0, 1.0, 1)
    assert figures["families"]["caption"] == {"exact_match": 0.0, "text": 6.0, "n": 1}
    before = {"families": {"caption": {"text": 4.0}}}
    assert forgotten(before, figures, ["caption", "audio_class"]) == {"caption": 0.5}


def test_nested_figures_are_flattened_and_missing_ones_left_out() -> None:
    assert flat({"loss": 1.0, "norm": None, "val": {"seen": {"n": 2}}}) == {"loss": 1.0, "val/seen/n": 2}
