"""Closed sets and multiple choice: exact log-likelihoods of given answers, and how to rank by them.

    score_answers(model, batch, tokenizer, answers) -> float64 [B, Q, N]: all questions, the same N answers
    score_options(model, batch, tokenizer, options) -> B x Q arrays: each question, its own answers
    answer_tokens(tokenizer, answers) -> int [N]: scores / tokens is the mean per token

A score is log p(answer, end mark | prompt, clip), the sum over tokens: the probability that the model, drawing token by
token, says exactly this. It is the headline. It favours short answers, as the model does; a protocol that ranks by the
mean per token divides by ``answer_tokens`` and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import listing
from mirasol.evaluation.generate import prompts_of
from mirasol.model.batch import Batch
from mirasol.model.closed_set import score
from mirasol.model.mirasol import Encoded, Mirasol
from mirasol.tokenizer import EOS, Tokenizer

SHOWN = 5  # answers named in an error

Scores = NDArray[np.float64]


@torch.inference_mode()
def score_answers(
    model: Mirasol, batch: Batch, tokenizer: Tokenizer, answers: Sequence[str], encoded: Encoded | None = None
) -> Scores:
    """Log-likelihoods [B, Q, N] of the same N ``answers`` to every question; NaN for texts that only pad a clip.

    ``batch.tokens`` give the questions; the answers behind them are not looked at. ``encoded`` is what the model makes
    of the batch, where that is known.

    Raises:
        ValueError: there is no answer, or a tensor of the batch does not fit the model.
        MirasolError: answers do not fit the text cache behind a prompt of the batch.
    """
    if not answers:
        raise ValueError("no answer to score")
    return _score(model, batch, tokenizer, [answers], encoded)


@torch.inference_mode()
def score_options(
    model: Mirasol,
    batch: Batch,
    tokenizer: Tokenizer,
    options: Sequence[Sequence[Sequence[str]]],
    encoded: Encoded | None = None,
) -> list[list[Scores]]:
    """Log-likelihoods of each question's own answers, B x Q arrays of as many numbers as the question has options.

    Args:
        options: B x Q lists of texts; an empty list where a clip has fewer questions.
        encoded: what the model makes of the batch, where that is known.

    Raises:
        ValueError: the lists are not B x Q, or a tensor of the batch does not fit the model.
        MirasolError: options do not fit the text cache behind their prompt.
    """
    clips, texts, _ = batch.tokens.shape
    if len(options) != clips or any(len(clip) != texts for clip in options):
        raise ValueError(f"options for {[len(clip) for clip in options]} questions, expected {texts} in {clips} clips")
    scores = _score(model, batch, tokenizer, [given for clip in options for given in clip], encoded)
    return [[scores[b, q, : len(given)] for q, given in enumerate(clip)] for b, clip in enumerate(options)]


def answer_tokens(tokenizer: Tokenizer, answers: Iterable[str]) -> NDArray[np.int64]:
    """Tokens that each answer's score is a sum over, its end mark included."""
    return np.array([tokenizer.answer_length(answer) for answer in answers], np.int64)


def _score(
    model: Mirasol,
    batch: Batch,
    tokenizer: Tokenizer,
    answers: Sequence[Sequence[str]],
    encoded: Encoded | None,
) -> Scores:
    """[B, Q, N]; ``answers`` to all questions as one entry, or to each of B*Q."""
    prompts, lengths = prompts_of(batch)
    ids = [[[*tokenizer.encode(answer), EOS] for answer in given] for given in answers]
    behind = lengths.flatten().tolist() if len(answers) > 1 else [int(lengths.max())]
    limit = model.config.max_text
    if long := [
        f"{answer!r}: {len(tokens)} tokens behind a prompt of {prompt}"
        for prompt, given, row in zip(behind, answers, ids, strict=True)
        for answer, tokens in zip(given, row, strict=True)
        if prompt + len(tokens) > limit
    ]:
        title = f"{len(long)} answer(s) do not fit the text cache of tokenizer.max_text = {limit} tokens"
        raise MirasolError(listing(title, long, SHOWN))
    encoded = encoded or model.encode(batch)
    # where there is nothing to score the end alone takes its place, for as little work as possible
    scores = score(model.text, encoded.h, encoded.present, prompts, lengths, [row or [[EOS]] for row in ids])
    found: Scores = scores.masked_fill(~batch.answer_mask.any(-1, keepdim=True), torch.nan).cpu().numpy()
    return found
