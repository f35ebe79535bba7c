"""Scoring a closed set equals the whole forward pass over prompt and answer, one answer at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.model import random_batch, tiny_model, with_presence

from mirasol.model import closed_set
from mirasol.model.closed_set import Trie, score
from mirasol.model.generation import EOS, PAD, Decoding, Questions, length_penalty, search

LENGTHS = torch.tensor([[1, 2, 3], [6, 5, 4]])


def asked(model, presence="both", lengths=LENGTHS):
    """What a search and a score begin with: latents, presence, prompts, lengths."""
    batch = random_batch(model.config, texts=3, dtype=model.text.embedding.weight.dtype)
    with torch.no_grad():
        encoded = model.encode(with_presence(batch, presence))
    prompts = batch.tokens[:, :, :6].masked_fill(torch.arange(6) >= lengths[..., None], PAD)
    return Questions(encoded.h, encoded.present, prompts, lengths)


@torch.no_grad()
def slowly(model, h, present, prompt, answer):
    """log p(answer | prompt) by one forward pass over both."""
    tokens = torch.tensor([*prompt.tolist(), *answer])[None, None]
    logits = model.logits(tokens, h[None], present[None])[0, 0].log_softmax(dim=-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def slow_scores(model, h, present, prompts, lengths, answers):
    """[B][Q][N]; ``answers`` for each of the prompts."""
    given = iter(answers)
    return [
        [[slowly(model, h[b], present[b], prompts[b, q, : lengths[b, q]], a) for a in next(given)] for q in range(3)]
        for b in range(2)
    ]


def random_answers(count, longest, seed):
    draws = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest, (count,), generator=draws).tolist()
    return [[*torch.randint(5, 8, (n,), generator=draws).tolist(), EOS] for n in lengths]


@pytest.mark.parametrize("presence", ["both", "gaps", "nothing"])
@pytest.mark.parametrize("nodes", [1, 3, 64])
def test_scores_equal_one_pass_each(presence, nodes, monkeypatch):
    monkeypatch.setattr(closed_set, "NODES", nodes)
    model = tiny_model(dtype=torch.float64, seed=3)
    inputs = asked(model, presence)
    answers = random_answers(40, 6, seed=1)
    found = score(model.text, inputs, [answers])
    expected = torch.tensor(slow_scores(model, *inputs, [answers] * 6), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 7, 4096])
def test_each_prompt_has_its_own_answers(tokens, monkeypatch):
    monkeypatch.setattr(closed_set, "TOKENS", tokens)
    model = tiny_model(dtype=torch.float64, seed=4)
    inputs = asked(model)
    answers = [random_answers(count, 6, seed=count) for count in (1, 5, 2, 9, 3, 5)]
    found = score(model.text, inputs, answers).flatten(0, 1)
    expected = [row for clip in slow_scores(model, *inputs, answers) for row in clip]
    assert found.shape == (6, 9)
    for row, right in zip(found.tolist(), expected, strict=True):
        assert row[: len(right)] == pytest.approx(right, abs=1e-12)
        assert all(math.isnan(x) for x in row[len(right) :])


def test_equal_beginnings_are_nodes_once():
    trie = Trie([[7, 8, EOS], [7, EOS], [7, 8, 9, EOS], [5, EOS], [7, EOS], [EOS]])
    assert sorted(trie.tokens) == sorted([EOS, 5, EOS, 7, EOS, 8, EOS, 9, EOS])
    assert trie.inner_tokens == [5, 7, 8, 9]
    assert trie.paths[1] == trie.paths[4]


def test_a_closed_set_gives_the_greedy_answer_its_own_log_likelihood():
    model = tiny_model(seed=5)
    inputs = asked(model)
    found = search(model.text, inputs, Decoding(5))
    answers = [[t for t in row if t != PAD] for row in found.tokens.flatten(0, 1).tolist()]
    scores = score(model.text, inputs, [answers]).view(6, 6).diagonal()
    torch.testing.assert_close(scores, found.log_likelihood.flatten(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_them(alpha):
    model = tiny_model(dtype=torch.float64, seed=6, vocabulary=6)
    inputs = asked(model)
    words = [t for t in range(6) if t != EOS]
    texts = [[*t, EOS] for n in range(3) for t in itertools.product(words, repeat=n)]
    texts += [list(t) for t in itertools.product(words, repeat=3)]  # cut by the limit
    scores = score(model.text, inputs, [texts])
    worth = scores / length_penalty(torch.tensor([len(t) for t in texts]), alpha)
    found = search(model.text, inputs, Decoding(3, len(texts), alpha))
    best = worth.argmax(dim=-1)
    assert found.tokens.tolist() == [[(texts[i] + [PAD] * 3)[:3] for i in clip] for clip in best.tolist()]
    torch.testing.assert_close(found.log_likelihood, scores.gather(-1, best[..., None])[..., 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[[7, EOS]]] * 2, "answers for 2 prompts, expected 1 for all or 6"),
        ([[[7, EOS], []]], "no answers, or an empty one, for 1 prompts: the first is number 0"),
        ([[]], "no answers, or an empty one, for 1 prompts: the first is number 0"),
        ([[[7] * 7]], "prompts and answers of up to 13 tokens, the text cache holds 12"),
    ],
)
def test_what_cannot_be_scored_is_refused(answers, message):
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        score(model.text, asked(model), answers)


def test_each_beginning_goes_through_the_decoder_once(monkeypatch):
    monkeypatch.setattr(closed_set, "NODES", 4)
    model = tiny_model()
    answers = random_answers(40, 6, seed=1)
    fed = []
    forward = model.text.forward

    def counting(tokens, memory, past=None, picked=None):
        if past is not None:
            fed.append(tokens.shape)
        return forward(tokens, memory, past, picked)

    monkeypatch.setattr(model.text, "forward", counting)
    score(model.text, asked(model), [answers])
    assert sum(count for _, _, count in fed) == len({tuple(a[:n]) for a in answers for n in range(1, len(a))})
    assert max(count for _, _, count in fed) == 4
