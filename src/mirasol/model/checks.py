"""Checks of tensors against the model: every error gives the value found and the value expected."""

from __future__ import annotations

import torch
from torch import Tensor

from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig


def check_clips(batch: Batch, config: ModelConfig, like: Tensor) -> None:
    """Raise ``ValueError`` unless video, audio and presence fit the model; ``like`` is one of its weights."""
    clips, chunks = batch.video.shape[:2]
    expected = {
        "video": ((clips, chunks, config.frames_per_chunk, config.size * 3 // 2, config.size), torch.uint8),
        "audio": ((clips, chunks, config.audio_columns, config.mels), like.dtype),
        "video_present": ((clips, chunks), torch.bool),
        "audio_present": ((clips, chunks), torch.bool),
    }
    for name, (shape, _) in expected.items():
        check_shape(name, getattr(batch, name), shape)
    if chunks < 1:
        raise ValueError("a clip of 0 chunks, expected at least 1")
    for name, (_, dtype) in expected.items():
        check_kind(name, getattr(batch, name), dtype, like.device)


def check_texts(batch: Batch, device: torch.device) -> None:
    """Raise ``ValueError`` unless the texts belong to the clips and are on the model's device."""
    if batch.tokens.dim() != 3:
        raise ValueError(f"tokens has shape {tuple(batch.tokens.shape)}, expected [B, Q, L]")
    shape = (batch.video.shape[0], *batch.tokens.shape[1:])
    for name, expected in (("tokens", shape), ("answer_mask", shape), ("text_weight", shape[:2])):
        check_shape(name, getattr(batch, name), expected)
    check_kind("tokens", batch.tokens, torch.int64, device)
    check_kind("answer_mask", batch.answer_mask, torch.bool, device)


def check_waveform(batch: Batch) -> None:
    """Raise ``ValueError`` unless the waveform belongs to the clips and is on their device."""
    sound = batch.waveform
    assert sound is not None
    if sound.chunks.dim() != 4:
        raise ValueError(f"waveform.chunks has shape {tuple(sound.chunks.shape)}, expected [B, n, T, W]")
    clips, chunks = batch.audio_present.shape
    count, width = sound.chunks.shape[1], sound.chunks.shape[3]
    check_shape("waveform.chunks", sound.chunks, (clips, count, chunks, width))
    check_shape("waveform.samples", sound.samples, (clips, count, chunks))
    check_shape("waveform.masks", sound.masks, (clips, count, 4))
    check_shape("waveform.shares", sound.shares, (clips, count))
    check_kind("waveform.chunks", sound.chunks, torch.int16, batch.audio_present.device)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the tensor has this shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def check_kind(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ``ValueError`` unless the tensor has this type and is on this device."""
    if tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype}, expected {dtype}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, the model on {device}: move the batch there")
