"""Cached decoding equals the whole forward pass, greedy and with a beam."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, tiny_model, with_presence

from mirasol.model.generation import EOS, PAD, Decoding, Questions, search


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


def scripted(model, monkeypatch, script):
    """Have the decoder say ``script`` [steps, B, Q] whatever it is asked; returns the shapes that it was asked in."""
    shapes = []

    def head(hidden):
        said = torch.nn.functional.one_hot(torch.as_tensor(script[len(shapes)]), model.config.vocabulary)
        shapes.append(tuple(hidden.shape[:3]))
        return said[:, :, None].expand(-1, -1, hidden.shape[2], -1).float()

    monkeypatch.setattr(model.text, "head", head)
    return shapes


def test_an_answer_stops_at_its_end(monkeypatch):
    model = tiny_model()
    shapes = scripted(model, monkeypatch, [[[7, 8]], [[EOS, 8]], [[EOS]], [[9]]])
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    answers = model.generate(h, present, torch.full((1, 2, 3), 6), torch.tensor([[3, 2]]), 4)
    assert answers.tolist() == [[[7, EOS, PAD, PAD], [8, 8, EOS, PAD]]]
    assert shapes == [(1, 2, 1), (1, 2, 1), (1, 1, 1)]  # one had ended, then all: no fourth step


def test_what_has_ended_leaves_the_batch_and_is_put_back_in_its_place(monkeypatch):
    model = tiny_model()
    script = [
        [[7, EOS, 9], [EOS, EOS, EOS], [EOS, 8, 5]],
        [[EOS, 11], [EOS, 12]],  # clips 0 and 2: their open texts alone
        [[13], [14]],
        [[EOS], [EOS]],
    ]
    shapes = scripted(model, monkeypatch, script)
    h, present = torch.zeros(3, 2, 3, 24), torch.ones(3, 2, dtype=torch.bool)
    answers = model.generate(h, present, torch.full((3, 3, 3), 6), torch.full((3, 3), 3), 4)
    nothing = [EOS, PAD, PAD, PAD]
    assert answers.tolist() == [
        [[7, EOS, PAD, PAD], nothing, [9, 11, 13, EOS]],
        [nothing, nothing, nothing],
        [nothing, [8, EOS, PAD, PAD], [5, 12, 14, EOS]],
    ]
    assert shapes == [(3, 3, 1), (2, 2, 1), (2, 1, 1), (2, 1, 1)]


@torch.no_grad()
def plain_beam(model, encoded, clip, prompt, max_new, beam, alpha):
    """Beam search with lists, everything run again for every hypothesis and token."""
    h, present = encoded.h[clip : clip + 1], encoded.present[clip : clip + 1]
    pool = [(0.0, [])]

    def worth(hypothesis):
        return hypothesis[0] / ((5 + len(hypothesis[1])) / 6) ** alpha

    for _ in range(max_new):
        grown = []
        for total, answer in pool:
            if answer[-1:] == [EOS]:
                grown.append((total, answer))
                continue
            tokens = torch.tensor([*prompt.tolist(), *answer])[None, None]
            gains = model.logits(tokens, h, present)[0, 0, -1].log_softmax(-1).tolist()
            grown += [(total + gain, [*answer, token]) for token, gain in enumerate(gains)]
        pool = sorted(grown, key=worth, reverse=True)[:beam]
    return pool[0]


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.6), (2, 0.6), (4, 0.6), (4, 0.0), (30, 2.0)])
def test_a_beam_equals_one_of_lists(beam, alpha):
    model = tiny_model(dtype=torch.float64, seed=1, vocabulary=7)  # few words: some answers end before the limit
    batch = random_batch(model.config, texts=5, dtype=torch.float64)
    with torch.no_grad():
        encoded = model.encode(batch)
    lengths = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    prompts = batch.tokens[:, :, :5].masked_fill(torch.arange(5) >= lengths[..., None], PAD)
    found = search(model.text, Questions(encoded.h, encoded.present, prompts, lengths), Decoding(5, beam, alpha))
    expected = [
        [plain_beam(model, encoded, b, prompts[b, q, : lengths[b, q]], 5, beam, alpha) for q in range(5)]
        for b in range(2)
    ]
    answers = [[(answer + [PAD] * 5)[:5] for _, answer in clip] for clip in expected]
    assert found.tokens.tolist() == answers
    assert len({len(answer) for clip in expected for _, answer in clip}) > 1
    totals = torch.tensor([[total for total, _ in clip] for clip in expected], dtype=torch.float64)
    torch.testing.assert_close(found.log_likelihood, totals, rtol=0, atol=1e-12)


def test_equals_go_to_the_lowest_token(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.text, "head", lambda hidden: hidden.new_zeros(*hidden.shape[:-1], 19))
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    for beam in (1, 2, 3):  # with EOS = 3 in reach, from a beam of 4 on, ending at once is best
        found = search(
            model.text, Questions(h, present, torch.full((1, 1, 3), 6), torch.tensor([[3]])), Decoding(4, beam, 0.0)
        )
        assert found.tokens.tolist() == [[[0, 0, 0, 0]]]


@pytest.mark.parametrize("beam", [1, 3])
def test_batches_give_what_single_clips_give(beam):
    model = tiny_model(dtype=torch.float64, seed=8)
    batch = random_batch(model.config, clips=7, texts=3, dtype=torch.float64)
    with torch.no_grad():
        encoded = model.encode(batch)
    lengths = torch.randint(1, 7, (7, 3), generator=torch.Generator().manual_seed(0))
    inputs = Questions(encoded.h, encoded.present, batch.tokens[:, :, :6], lengths)
    whole = search(model.text, inputs, Decoding(6, beam))
    parts = [search(model.text, Questions(*(x[b : b + 1] for x in inputs)), Decoding(6, beam)) for b in range(7)]
    assert torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))
    likelihoods = torch.cat([part.log_likelihood for part in parts])
    torch.testing.assert_close(whole.log_likelihood, likelihoods, rtol=0, atol=1e-12)


def test_each_prompt_is_held_to_the_text_cache_by_itself(monkeypatch):
    model = tiny_model()
    scripted(model, monkeypatch, [[[7, 8]]] * 3 + [[[9]]] * 3)
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    answers = model.generate(h, present, torch.full((1, 2, 9), 6), torch.tensor([[9, 4]]), 6)
    assert answers.tolist() == [[[7, 7, 7, PAD, PAD, PAD], [8, 8, 8, 9, 9, 9]]]


def test_what_nobody_wants_is_not_answered(monkeypatch):
    model = tiny_model()
    scripted(model, monkeypatch, [[[7, 8, 9], [7, 8, 9]], [[EOS]]])
    h, present = torch.zeros(2, 2, 3, 24), torch.ones(2, 2, dtype=torch.bool)
    wanted = torch.tensor([[False, True, False], [False, False, False]])
    prompts, lengths = torch.full((2, 3, 3), 6), torch.full((2, 3), 3)
    found = search(model.text, Questions(h, present, prompts, lengths), Decoding(3), wanted)
    assert found.tokens.tolist() == [[[PAD] * 3, [8, EOS, PAD], [PAD] * 3], [[PAD] * 3] * 3]


def test_what_cannot_be_answered_is_refused():
    model = tiny_model()
    h, present = torch.zeros(1, 2, 3, 24), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="a prompt of 12 tokens fills the text cache of 12 tokens"):
        model.generate(h, present, torch.ones(1, 1, 12, dtype=torch.int64), torch.tensor([[12]]), 6)
    with pytest.raises(ValueError, match="prompt lengths 0 to 0, expected 1 to 4"):
        model.generate(h, present, torch.ones(1, 1, 4, dtype=torch.int64), torch.tensor([[0]]), 2)
    with pytest.raises(ValueError, match="a beam of 0 with answers of 2 tokens, expected at least 1 of both"):
        asked = Questions(h, present, torch.ones(1, 1, 4, dtype=torch.int64), torch.tensor([[4]]))
        search(model.text, asked, Decoding(2, beam=0))
