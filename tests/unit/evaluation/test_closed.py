from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.evaluation.generate import answer, answer_tokens, score_answers, score_options
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.tokenizer import Tokenizer
from mirasol.training.weights import load_model

WORDS = ["red", "green", "bell", "buzz", "left", "right", "yes", "no", "one", "two", "the red one", "the green one", ""]


@pytest.fixture(scope="module")
def words(made_project: Path) -> Tokenizer:
    return Tokenizer.load(made_project / "build/tokenizer/tokenizer.json")


@pytest.fixture(scope="module")
def model(made_project: Path) -> Mirasol:
    return load_model(made_project / "build/finetune").eval()


def batches(project: Path, words: Tokenizer, size: int) -> list[Batch]:
    return list(eval_loader(ShardDataset(project / "build/shards", "test"), words, tasks=("qa",), batch_size=size))


def by_example(rows: list[Batch], found: list) -> dict[str, np.ndarray]:
    """What was found for each question, in whatever batches they came."""
    return {
        example: found[i][b][q]
        for i, batch in enumerate(rows)
        for b, ids in enumerate(batch.example_ids)
        for q, example in enumerate(ids)
        if example
    }


def test_a_score_is_the_log_likelihood_of_answer_and_end(made_project: Path, words: Tokenizer, model: Mirasol) -> None:
    batch = batches(made_project, words, 3)[0]
    scores = score_answers(model, batch, words, WORDS)
    with torch.no_grad():
        encoded = model.encode(batch)
        prompt = batch.tokens[1, 2][~batch.answer_mask[1, 2] & (batch.tokens[1, 2] != 0)]
        for text, found in zip(WORDS, scores[1, 2], strict=True):
            ids = torch.tensor(words.text_ids("", text)[2:])
            logits = model.logits(torch.cat([prompt, ids])[None, None], encoded.h[1:2], encoded.present[1:2])[0, 0]
            steps = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids[:, None])
            assert len(steps) == answer_tokens(words, [text])[0]
            assert found == pytest.approx(float(steps.sum()), abs=1e-4)


def test_batches_of_1_7_and_64_give_equal_answers_and_scores(
    made_project: Path, words: Tokenizer, model: Mirasol
) -> None:
    greedy, beam, closed, options = [], [], [], []
    exact = copy.deepcopy(model).double()  # single precision rounds by the size of a product
    for size in (1, 7, 64):
        rows = batches(made_project, words, size)
        doubled = [dataclasses.replace(batch, audio=batch.audio.double()) for batch in rows]
        greedy.append(by_example(rows, [answer(model, batch, words, 8) for batch in rows]))
        beam.append(by_example(rows, [answer(model, batch, words, 8, beam=3) for batch in rows]))
        closed.append(by_example(rows, [score_answers(exact, batch, words, WORDS) for batch in doubled]))
        given = [[[WORDS[q % 3 : 6] for q in range(len(ids))] for ids in batch.example_ids] for batch in rows]
        options.append(
            by_example(rows, [score_options(exact, b, words, some) for b, some in zip(doubled, given, strict=True)])
        )
    assert greedy[0] == greedy[1] == greedy[2]
    assert beam[0] == beam[1] == beam[2]
    for found in (closed, options):
        for other in found[1:]:
            for example, scores in found[0].items():
                np.testing.assert_allclose(other[example], scores, rtol=1e-12, atol=0)


def test_options_score_as_the_same_texts_of_a_closed_set(made_project: Path, words: Tokenizer, model: Mirasol) -> None:
    batch = batches(made_project, words, 5)[0]
    options = [[WORDS[b : b + 2 + q % 3] for q in range(len(ids))] for b, ids in enumerate(batch.example_ids)]
    closed = score_answers(model, batch, words, WORDS)
    for b, clip in enumerate(score_options(model, batch, words, options)):
        for q, scores in enumerate(clip):
            np.testing.assert_allclose(scores, closed[b, q, b : b + 2 + q % 3], rtol=1e-6)


def test_texts_that_pad_a_clip_have_no_score(made_project: Path, words: Tokenizer, model: Mirasol) -> None:
    batch = batches(made_project, words, 2)[0]
    batch.tokens[0, -1] = 0
    batch.answer_mask[0, -1] = False
    scores = score_answers(model, batch, words, WORDS)
    assert np.isnan(scores[0, -1]).all()
    assert np.isfinite(scores[0, :-1]).all()
    options = [[WORDS[:2]] * len(ids) for ids in batch.example_ids]
    options[0][-1] = []
    assert [len(scores) for scores in score_options(model, batch, words, options)[0]][-2:] == [2, 0]
    assert answer(model, batch, words, 8)[0][-1] == ""


def test_answers_that_do_not_fit_are_named(made_project: Path, words: Tokenizer, model: Mirasol) -> None:
    batch = batches(made_project, words, 2)[0]
    with pytest.raises(
        MirasolError,
        match=r"1 answer\(s\) do not fit .* 48 tokens, finetune.max_text or else .*:\n  'red red.* behind a ",
    ):
        score_answers(model, batch, words, ["red", "red " * 60])
    options = [[["red", "red " * 60]] * len(ids) for ids in batch.example_ids]
    with pytest.raises(MirasolError, match=r"\d+ answer\(s\) do not fit"):
        score_options(model, batch, words, options)


def test_wrong_counts_are_refused(made_project: Path, words: Tokenizer, model: Mirasol) -> None:
    batch = batches(made_project, words, 2)[0]
    with pytest.raises(ValueError, match="no answer to score"):
        score_answers(model, batch, words, [])
    with pytest.raises(ValueError, match=r"options for \[1, 1\] questions, expected 10 in 2 clips"):
        score_options(model, batch, words, [[["red"]], [["red"]]])
