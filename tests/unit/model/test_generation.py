"""Cached greedy decoding equals the argmax of the whole forward pass."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, tiny_model, with_presence

from mirasol.model.generation import EOS, PAD


@torch.no_grad()
def slowly(model, encoded, clip, prompt, max_new):
    """Greedy decoding by running everything again for every token."""
    tokens, answer = prompt.tolist(), []
    h, present = encoded.h[clip : clip + 1], encoded.present[clip : clip + 1]
    for _ in range(max_new):
        token = int(model.logits(torch.tensor(tokens)[None, None], h, present)[0, 0, -1].argmax())
        tokens.append(token)
        answer.append(token)
        if token == EOS:
            break
    return answer + [PAD] * (max_new - len(answer))


@pytest.mark.parametrize("presence", ["both", "gaps", "nothing"])
def test_generate_equals_the_argmax(presence):
    model = tiny_model(dtype=torch.float64, seed=3)
    batch = with_presence(random_batch(model.config, texts=6, dtype=torch.float64), presence)
    with torch.no_grad():
        encoded = model.encode(batch)
    lengths = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    prompts = batch.tokens[:, :, :6].masked_fill(torch.arange(6) >= lengths[..., None], PAD)
    answers = model.generate(encoded.h, encoded.present, prompts, lengths, 6)
    expected = [
        [slowly(model, encoded, clip, prompts[clip, q, : lengths[clip, q]], 6) for q in range(6)] for clip in range(2)
    ]
    assert answers.tolist() == expected


def test_an_answer_stops_at_its_end(monkeypatch):
    model = tiny_model()
    script = torch.tensor([[[7, EOS, 9, 9], [8, 8, EOS, 9]]])
    calls = iter(range(4))

    def head(hidden):
        return torch.nn.functional.one_hot(script[:, :, next(calls)], 19).float()

    monkeypatch.setattr(model.text, "head", head)
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    answers = model.generate(h, present, torch.full((1, 2, 3), 6), torch.tensor([[3, 2]]), 4)
    assert answers.tolist() == [[[7, EOS, PAD, PAD], [8, 8, EOS, PAD]]]
    assert next(calls) == 3  # all had ended: no fourth step


def test_prompts_that_do_not_fit_are_refused():
    model = tiny_model()
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="prompts of 8 tokens with answers of 6 are longer than the text cache of 12"):
        model.generate(h, present, torch.ones(1, 1, 8, dtype=torch.int64), torch.tensor([[8]]), 6)
    with pytest.raises(ValueError, match="prompt lengths 0 to 0, expected 1 to 4"):
        model.generate(h, present, torch.ones(1, 1, 4, dtype=torch.int64), torch.tensor([[0]]), 2)
