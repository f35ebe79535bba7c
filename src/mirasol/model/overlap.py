"""Chunks that overlap (P 3.3: "overlap is possible but currently not used"): the end of the last chunk in front.

Batches, shards and streams hold chunks that do not overlap. The model puts the last ``overlap`` frames of the chunk
before, and the sound of the same time, in front of each chunk. For the first chunk, and where the chunk before lacks
the modality, the picture is black and the sound is silence.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """The state before the first chunk, all zeros: ends of a chunk [B, o, H*3/2, W] and [B, o*A/K, M], absent."""
        if not self.frames:
            return {}
        ends = (
            torch.zeros(batch, *self.video_shape, device=device, dtype=torch.uint8),
            torch.zeros(batch, device=device, dtype=torch.bool),
            torch.zeros(batch, *self.audio_shape, device=device, dtype=dtype),
            torch.zeros(batch, device=device, dtype=torch.bool),
        )
        return dict(zip(STATES, ends, strict=True))

    def video(self, video: Tensor, present: Tensor, state: StreamState | None = None) -> Tensor:
        """[B, T, K, H*3/2, W] -> [B, T, K+o, H*3/2, W]; ``present`` bool [B, T].

        With the ``state`` of the chunk before, T is 1.
        """
        if not self.frames:
            return video
        end, seen = _before(video[:, :, -self.frames :], present, state, STATES[:2])
        row = torch.arange(video.shape[-2], device=video.device)[:, None]
        black = torch.where(row < self.luma_rows, BLACK_Y, BLACK_UV).to(video.dtype)
        return torch.cat([torch.where(seen[..., None, None, None], end, black), video], dim=2)

    def audio(self, audio: Tensor, present: Tensor, state: StreamState | None = None) -> Tensor:
        """[B, T, A, M] -> [B, T, A+o*A/K, M]; as of :meth:`video`."""
        if not self.frames:
            return audio
        end, heard = _before(audio[:, :, -self.columns :], present, state, STATES[2:])
        return torch.cat([torch.where(heard[..., None, None], end, SILENCE), audio], dim=2)

    def after(self, video: Tensor, audio: Tensor, video_present: Tensor, audio_present: Tensor) -> StreamState:
        """The state after a clip's last chunk."""
        if not self.frames:
            return {}
        ends = (video[:, -1, -self.frames :], video_present[:, -1], audio[:, -1, -self.columns :], audio_present[:, -1])
        return {name: end.clone() for name, end in zip(STATES, ends, strict=True)}


def _before(end: Tensor, present: Tensor, state: StreamState | None, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The ``end`` [B, T, ...] and presence [B, T] of the chunk before each; with a state, its ``names``."""
    if state is not None:
        return state[names[0]][:, None], state[names[1]][:, None]
    ends, seen = (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1) for x in (end, present))
    return ends, seen
