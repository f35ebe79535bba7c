"""Batches of noise of the right shapes, and the loss of a train step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mirasol.model.batch import Batch, text_targets
from mirasol.model.config import ModelConfig, ModelSpec
from mirasol.model.sizes.presets import build_config


def demo_config() -> ModelConfig:
    """The demo's model, on the clips and texts of params.yaml."""
    return build_config(
        ModelSpec(), size=48, frames_per_chunk=4, mels=32, audio_columns=16, vocabulary=256, max_text=48
    )


def random_batch(
    config: ModelConfig, clips: int, chunks: int, texts: int, length: int, *, predicted: int = 2, device: str = "cpu"
) -> Batch:
    """Everything present; the last ``predicted`` of ``length`` tokens of each text are its answer."""
    draws = torch.Generator().manual_seed(0)
    frames = (clips, chunks, config.frames_per_chunk, config.size * 3 // 2, config.size)
    answers = torch.zeros(clips, texts, length, dtype=torch.bool)
    answers[:, :, -predicted:] = True
    present = torch.ones(clips, chunks, dtype=torch.bool)
    batch = Batch(
        video=torch.randint(16, 236, frames, dtype=torch.uint8, generator=draws),
        audio=torch.randn(clips, chunks, config.audio_columns, config.mels, generator=draws),
        video_present=present,
        audio_present=present.clone(),
        tokens=torch.randint(5, config.vocabulary, (clips, texts, length), generator=draws),
        answer_mask=answers,
        text_weight=torch.ones(clips, texts),
        keys=[str(clip) for clip in range(clips)],
        example_ids=[[f"{clip}-{text}" for text in range(texts)] for clip in range(clips)],
    )
    batch.targets = text_targets(batch.tokens, batch.answer_mask)  # on the host, as in the collator
    return batch.to(device)


def with_gaps(batch: Batch, config: ModelConfig) -> Batch:
    """The batch with every second clip silent, no last frames, and a quarter of the features hidden (P 3.6)."""
    video, audio = batch.video_present.clone(), batch.audio_present.clone()
    video[:, -1], audio[::2] = False, False
    draws = torch.Generator().manual_seed(1)
    masked = torch.rand(*video.shape, config.num_queries, generator=draws) < 0.25
    gaps = {"video_present": video, "audio_present": audio, "masked": masked.to(video.device), "complete": False}
    return dataclasses.replace(batch, **gaps)


def weighted_loss(losses: dict[str, Tensor]) -> Tensor:
    """The paper's weights in pretraining: one each (P 3.5)."""
    return losses["text"] + losses["latent"] + losses["video"]
