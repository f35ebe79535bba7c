"""Chunks that overlap (P 3.3: "overlap is possible but currently not used"): the end of the chunk before in front.

Batches, shards and streams hold chunks that do not overlap. Here each chunk gets the last ``overlap`` frames of the
one before, and the sound of the same time, put in front of it. Where there is none, because a chunk is the first or
because the one before lacks the modality, the picture is black and the sound is silence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirasol.model.chunk_transformer import StreamState
from mirasol.model.config import ModelConfig

SILENCE = -1.0  # standardised log-mel of silence
BLACK_Y, BLACK_UV = 16, 128  # limited range, BT.601

STATES = ("overlap_video", "overlap_video_present", "overlap_audio", "overlap_audio_present")


class Overlap:
    """Puts the end of the chunk before in front of each chunk. With an overlap of 0 it changes nothing."""

    def __init__(self, config: ModelConfig) -> None:
        frames, columns = config.frames_per_chunk, config.audio_columns
        if not 0 <= config.overlap < frames:
            raise ValueError(f"overlap of {config.overlap} frames, expected 0 to {frames - 1}: a chunk has {frames}")
        if config.overlap * columns % frames:
            raise ValueError(
                f"overlap of {config.overlap} of {frames} frames: no whole number of a chunk's {columns} audio columns"
            )
        self.frames, self.columns = config.overlap, config.overlap_columns
        self.video_shape = (self.frames, config.size * 3 // 2, config.size)
        self.audio_shape = (self.columns, config.mels)
        self.luma_rows = config.size

    def whole(
        self, video: Tensor, audio: Tensor, video_present: Tensor, audio_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All chunks at once: video [B, T, K, H*3/2, W] -> [B, T, K+o, H*3/2, W], audio [B, T, A, M] -> [B, T, A+, M].

        ``video_present`` and ``audio_present`` are bool [B, T]; ``o`` is the overlap, A+ the columns of K+o frames.
        """
        if not self.frames:
            return video, audio
        before_video = _later(video[:, :, -self.frames :])
        before_audio = _later(audio[:, :, -self.columns :])
        return (
            torch.cat([self._picture(before_video, _later(video_present)), video], dim=2),
            torch.cat([self._sound(before_audio, _later(audio_present)), audio], dim=2),
        )

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Nothing before the first chunk, all zeros: ends of a chunk [B, o, H*3/2, W] and [B, o*A/K, M], absent."""
        if not self.frames:
            return {}
        ends = (
            torch.zeros(batch, *self.video_shape, device=device, dtype=torch.uint8),
            torch.zeros(batch, device=device, dtype=torch.bool),
            torch.zeros(batch, *self.audio_shape, device=device, dtype=dtype),
            torch.zeros(batch, device=device, dtype=torch.bool),
        )
        return dict(zip(STATES, ends, strict=True))

    def step(
        self, video: Tensor, audio: Tensor, video_present: Tensor, audio_present: Tensor, state: StreamState
    ) -> tuple[Tensor, Tensor, StreamState]:
        """One chunk, video [B, K, ...] and audio [B, A, M]: what it sees, and its own end for the next one."""
        if not self.frames:
            return video, audio, {}
        before_video, before_video_present, before_audio, before_audio_present = (state[name] for name in STATES)
        ends = (video[:, -self.frames :], video_present, audio[:, -self.columns :], audio_present)
        return (
            torch.cat([self._picture(before_video, before_video_present), video], dim=1),
            torch.cat([self._sound(before_audio, before_audio_present), audio], dim=1),
            {name: end.clone() for name, end in zip(STATES, ends, strict=True)},
        )

    def _picture(self, frames: Tensor, present: Tensor) -> Tensor:
        black = torch.full(self.video_shape[1:], BLACK_UV, dtype=torch.uint8, device=frames.device)
        black[: self.luma_rows] = BLACK_Y
        return torch.where(present[..., None, None, None], frames, black)

    def _sound(self, columns: Tensor, present: Tensor) -> Tensor:
        return torch.where(present[..., None, None], columns, torch.full_like(columns, SILENCE))


def _later(x: Tensor) -> Tensor:
    """Each chunk's in the place of the next [B, T, ...]; zeros, or False, in the first place."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
