"""Open-ended answers by generation (P 4): batches of clips with all their questions, under every condition.

    answer(model, batch, tokenizer, max_answer, beam=1) -> B x Q texts

Answers from a closed list are scored in :mod:`mirasol.evaluation.closed`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirasol.core.progress import Progress
from mirasol.data.loading.augment import other_draws
from mirasol.media.log_mel import BLACK_UV, BLACK_Y, SILENCE
from mirasol.model.batch import Batch
from mirasol.model.generation import search
from mirasol.model.mirasol import Encoded, Mirasol, check_clips
from mirasol.tokenizer import BOS, PAD, Tokenizer

Answers = dict[str, dict[str, str]]  # example id -> condition -> answer
CLIPS = ("video", "audio", "video_present", "audio_present")  # what a batch holds besides texts
SHUFFLE = 0x5348  # draws of their own


def muted(batch: Batch) -> Batch:
    """Digital silence in place of every sound. The sound still counts as present: it was recorded, and is silent."""
    return dataclasses.replace(batch, audio=torch.full_like(batch.audio, SILENCE))


def blanked(batch: Batch) -> Batch:
    """Black frames in place of every picture, which still counts as present."""
    video = torch.full_like(batch.video, BLACK_UV)
    video[..., : batch.video.shape[-1], :] = BLACK_Y
    return dataclasses.replace(batch, video=video)


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
    return other_draws(seed, SHUFFLE, number).permutation(chunks)


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
    """The model's answers, B x Q texts; those of padding are empty.

    Args:
        max_answer: longest answer in tokens, its end included; less behind a prompt that leaves less room.
        beam: hypotheses at a time (:func:`mirasol.model.generation.search`); 1 is greedy.
        encoded: what the model makes of the batch, where that is known.

    Raises:
        ValueError: a tensor of the batch does not fit the model.
    """
    encoded = encoded or model.encode(batch)
    prompts, lengths = prompts_of(batch)
    found = search(
        model.text, encoded.h, encoded.present, prompts, lengths, max_answer, beam, wanted=batch.answer_mask.any(-1)
    )
    return [[tokenizer.decode(text) for text in clip] for clip in found.tokens.tolist()]


@torch.inference_mode()
def answer_all(
    model: Mirasol,
    batches: Iterable[tuple[Batch, Batch | None]],
    tokenizer: Tokenizer,
    max_answer: int,
    progress: Progress,
    beam: int = 1,
    seed: int = 0,
) -> Answers:
    """The answers to every question of ``batches`` under every condition.

    Args:
        batches: each with the same clips under another clip's sound, ``None`` where there is no other sound.
        max_answer, beam: as of :func:`answer`.
        seed: of the order of shuffled chunks.

    Raises:
        ValueError: a tensor of a batch does not fit the model.
    """
    answers: Answers = {}
    for batch, swapped in batches:
        for condition, encoded in conditions(model, batch, swapped, seed):
            texts = answer(model, batch, tokenizer, max_answer, beam, encoded)
            for ids, row in zip(batch.example_ids, texts, strict=True):
                for example, text in zip(ids, row, strict=True):
                    if example:
                        answers.setdefault(example, {})[condition] = text
        progress.advance(len(batch.keys))
    return answers


def conditions(model: Mirasol, batch: Batch, swapped: Batch | None, seed: int = 0) -> Iterator[tuple[str, Encoded]]:
    """The latents under every condition, each computed when it is asked for.

    Features of a modality that a condition leaves alone are computed once.

    Args:
        swapped: the same clips under another clip's sound, ``None`` where there is no other sound.
        seed: of the order of shuffled chunks, which come last.

    Raises:
        ValueError: a tensor of a batch does not fit the model.
    """
    check_clips(batch, model.config, model.audio.project.weight)
    video, audio = model.video_features(batch), model.audio_features(batch)
    yield "full", model.join(video, audio, batch)
    one = dataclasses.replace(
        batch, **{name: getattr(batch, name)[:1] for name in CLIPS}
    )  # what is put in is alike in all
    yield "muted", model.join(video, model.audio_features(muted(one)).expand_as(audio), batch)
    yield "blanked", model.join(model.video_features(blanked(one)).expand_as(video), audio, batch)
    if swapped is None:
        yield "swapped", model.join(video, audio, batch)
    else:
        check_clips(swapped, model.config, model.audio.project.weight)
        yield "swapped", model.join(video, model.audio_features(swapped), swapped)
    yield "shuffled", model.encode(shuffled(batch, seed))
