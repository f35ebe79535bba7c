"""Answers about batches of clips with all their questions: generated (P 4), or scored from closed lists.

    answer(model, batch, tokenizer, max_answer, beam=1) -> B x Q texts
    score_answers(model, batch, tokenizer, answers) -> float64 [B, Q, N]: all questions, the same N answers
    score_options(model, batch, tokenizer, options) -> B x Q arrays: each question, its own answers
    answer_tokens(tokenizer, answers) -> int [N]: scores / tokens is the mean per token

A score is log p(answer, end mark | prompt, clip), the sum over tokens: the probability that the model, drawing token by
token, says exactly this. It favours short answers, as the model does; a protocol that ranks by the mean per token
divides by ``answer_tokens`` and says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirasol.core.errors import MirasolError, listing
from mirasol.data.conditions import Condition
from mirasol.data.loading.augment import draws_of, under
from mirasol.model.batch import Batch, Encoded
from mirasol.model.checks import check_clips
from mirasol.model.closed_set import score
from mirasol.model.generation import Decoding, Questions, search
from mirasol.model.mirasol import Mirasol
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.predictions import SHOWN
from mirasol.tokenizer import BOS, EOS, PAD, Tokenizer

Answers = dict[str, dict[str, str]]  # example id -> condition -> answer
CLIPS = ("video", "audio", "video_present", "audio_present")  # what a batch holds besides texts
SHUFFLE = 0x5348  # stream of random draws

Scores = NDArray[np.float64]


def shuffled(batch: Batch, seed: int) -> Batch:
    """Each clip's chunks, picture and sound together, in an order drawn by ``seed`` and the clip's key."""
    clips, chunks = batch.video.shape[:2]
    orders = np.stack([_order(chunks, seed, key) for key in batch.keys])
    index = torch.from_numpy(orders).to(batch.video.device)
    rows = torch.arange(clips, device=index.device)[:, None]
    return dataclasses.replace(batch, **{name: getattr(batch, name)[rows, index] for name in CLIPS})


def _order(chunks: int, seed: int, key: str) -> NDArray[np.int64]:
    if chunks == 1:
        return np.zeros(1, np.int64)
    number = int.from_bytes(key.encode()[-7:], "big")
    return draws_of(seed, SHUFFLE, number).permutation(chunks)


def prompts_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """The questions of a batch without their answers.

    Returns:
        Prompts int64 [B, Q, P], from ``bos`` to the answer mark, padded on the right; and their lengths int64
        [B, Q]. The texts that only pad a clip become one ``bos``.
    """
    lengths = batch.answer_mask.int().argmax(-1)
    empty = lengths == 0
    lengths = lengths.clamp(min=1)
    width = int(lengths.max())
    places = torch.arange(width, device=lengths.device)
    prompts = batch.tokens[:, :, :width].masked_fill(places >= lengths[..., None], PAD)
    prompts[empty] = torch.where(places == 0, BOS, PAD)
    return prompts, lengths


@torch.inference_mode()
def answer(
    model: Mirasol,
    batch: Batch,
    tokenizer: Tokenizer,
    max_answer: int,
    beam: int = 1,
    encoded: Encoded | None = None,
) -> list[list[str]]:
    """Generated answers, B x Q texts; padding gets empty ones.

    Args:
        max_answer: longest answer in tokens, with its end mark; less behind a prompt that fills the text cache.
        beam: hypotheses at a time (:func:`mirasol.model.generation.search`); 1 is greedy.
        encoded: ``model.encode(batch)``, if known.

    Raises:
        ValueError: a tensor of the batch does not fit the model.
    """
    encoded = encoded or model.encode(batch)
    asked = Questions(encoded.h, encoded.present, *prompts_of(batch))
    found = search(model.text, asked, Decoding(max_answer, beam), wanted=batch.answer_mask.any(-1))
    return [[tokenizer.decode(text) for text in clip] for clip in found.tokens.tolist()]


@torch.inference_mode()
def answer_all(
    model: Mirasol, batch: Batch, swapped: Batch | None, tokenizer: Tokenizer, spec: EvaluateSpec
) -> Answers:
    """The answers to every question of a batch under every condition.

    Args:
        swapped: the same clips under another clip's sound, ``None`` if no clip has another sound.

    Raises:
        ValueError: a tensor of a batch does not fit the model.
    """
    answers: Answers = {}
    for condition, encoded in conditions(model, batch, swapped, spec.seed):
        texts = answer(model, batch, tokenizer, spec.max_answer, spec.beam, encoded)
        for ids, row in zip(batch.example_ids, texts, strict=True):
            for example, text in zip(ids, row, strict=True):
                if example:
                    answers.setdefault(example, {})[condition] = text
    return answers


def conditions(
    model: Mirasol, batch: Batch, swapped: Batch | None, seed: int = 0
) -> Iterator[tuple[Condition, Encoded]]:
    """The latents under every condition, computed one condition at a time.

    Features of a modality that a condition leaves alone are computed once.

    Args:
        swapped: the same clips under another clip's sound, ``None`` if no clip has another sound.
        seed: decides the order of shuffled chunks, which come last.

    Raises:
        ValueError: a tensor of a batch does not fit the model.
    """
    check_clips(batch, model.config, model.audio.project.weight)
    video, audio = model.video_features(batch), model.audio_features(batch)
    yield Condition.unchanged, model.join(video, audio, batch)
    # silence and black are alike in all clips: one clip is enough
    one = dataclasses.replace(batch, **{name: getattr(batch, name)[:1] for name in CLIPS})
    yield Condition.muted, model.join(video, model.audio_features(under(Condition.muted, one)).expand_as(audio), batch)
    yield (
        Condition.blanked,
        model.join(model.video_features(under(Condition.blanked, one)).expand_as(video), audio, batch),
    )
    if swapped is None:
        yield Condition.swapped, model.join(video, audio, batch)
    else:
        check_clips(swapped, model.config, model.audio.project.weight)
        yield Condition.swapped, model.join(video, model.audio_features(swapped), swapped)
    yield Condition.shuffled, model.encode(shuffled(batch, seed))


@torch.inference_mode()
def score_answers(
    model: Mirasol, batch: Batch, tokenizer: Tokenizer, answers: Sequence[str], encoded: Encoded | None = None
) -> Scores:
    """Log-likelihoods [B, Q, N] of the same N ``answers`` to every question; NaN for texts that only pad a clip.

    ``batch.tokens`` give the questions; the answers in them do not matter. ``encoded`` is ``model.encode(batch)``, if
    known.

    Raises:
        ValueError: ``answers`` is empty, or a tensor of the batch does not fit the model.
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
    """Log-likelihoods of each question's own options, B x Q arrays with one number per option.

    Args:
        options: B x Q lists of texts; an empty list for padding.
        encoded: ``model.encode(batch)``, if known.

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
    """Tokens that each answer's score sums over, with the end mark: int [N]."""
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
        key = "finetune.max_text or else tokenizer.max_text"
        title = f"{len(long)} answer(s) do not fit the text cache of {limit} tokens, {key}"
        raise MirasolError(listing(title, long, SHOWN))
    encoded = encoded or model.encode(batch)
    # a question without options scores the end mark alone, for as little work as possible
    asked = Questions(encoded.h, encoded.present, prompts, lengths)
    scores = score(model.text, asked, [row or [[EOS]] for row in ids])
    found: Scores = scores.masked_fill(~batch.answer_mask.any(-1, keepdim=True), torch.nan).cpu().numpy()
    return found
