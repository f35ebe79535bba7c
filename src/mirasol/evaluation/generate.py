"""Open-ended answers by greedy generation (P 4): batches of clips with all their questions, under every condition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mirasol.core.progress import Progress
from mirasol.data.features import BLACK_UV, BLACK_Y, SILENCE
from mirasol.data.tokenizer import BOS, PAD, Tokenizer
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol

Answers = dict[str, dict[str, str]]  # example id -> condition -> answer


def muted(batch: Batch) -> Batch:
    """Digital silence in place of every sound. The sound still counts as present: it was recorded, and is silent."""
    return dataclasses.replace(batch, audio=torch.full_like(batch.audio, SILENCE))


def blanked(batch: Batch) -> Batch:
    """Black frames in place of every picture, which still counts as present."""
    video = torch.full_like(batch.video, BLACK_UV)
    video[..., : batch.video.shape[-1], :] = BLACK_Y
    return dataclasses.replace(batch, video=video)


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
def answer(model: Mirasol, batch: Batch, tokenizer: Tokenizer, max_answer: int) -> list[list[str]]:
    """The model's answers, B x Q texts, those of padding included.

    Args:
        max_answer: longest answer in tokens, its end included; less where the text cache holds no more.

    Raises:
        ValueError: a tensor of the batch does not fit the model.
    """
    prompts, lengths = prompts_of(batch)
    encoded = model.encode(batch)
    room = min(max_answer, model.config.max_text - prompts.shape[-1])
    tokens = model.generate(encoded.h, encoded.present, prompts, lengths, room)
    return [[tokenizer.decode(text) for text in clip] for clip in tokens.tolist()]


def answer_all(
    model: Mirasol,
    batches: Iterable[tuple[Batch, Batch | None]],
    tokenizer: Tokenizer,
    max_answer: int,
    progress: Progress,
) -> Answers:
    """The answers to every question of ``batches`` under every condition.

    Args:
        batches: each with the same clips under another clip's sound, ``None`` where there is no other sound.
    """
    answers: Answers = {}
    for batch, swapped in batches:
        for condition, changed in _conditions(batch, swapped):
            texts = answer(model, changed, tokenizer, max_answer)
            for ids, row in zip(batch.example_ids, texts, strict=True):
                for example, text in zip(ids, row, strict=True):
                    if example:
                        answers.setdefault(example, {})[condition] = text
        progress.advance(len(batch.keys))
    return answers


def _conditions(batch: Batch, swapped: Batch | None) -> Iterator[tuple[str, Batch]]:
    yield "full", batch
    yield "muted", muted(batch)
    yield "blanked", blanked(batch)
    yield "swapped", swapped or batch
