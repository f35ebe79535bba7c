"""Chunks that overlap (P 3.3: "overlap is possible but currently not used"): the end of the last chunk in front.

Batches, shards and streams hold chunks that do not overlap. The model puts the last ``overlap`` frames of the chunk
before, and the sound of the same time, in front of each chunk. For the first chunk, and where the chunk before lacks
the modality, the picture is black and the sound is silence.
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

    def __call__(
        self,
        video: Tensor,
        audio: Tensor,
        video_present: Tensor,
        audio_present: Tensor,
        state: StreamState | None = None,
    ) -> tuple[Tensor, Tensor, StreamState]:
        """Video [B, T, K, H*3/2, W] -> [B, T, K+o, H*3/2, W] and audio [B, T, A, M] -> [B, T, A+o*A/K, M].

        The presence is bool [B, T]. With the ``state`` of the chunk before T is 1 and the next state comes out.
        """
        if not self.frames:
            return video, audio, {}
        ends = (video[:, :, -self.frames :], video_present, audio[:, :, -self.columns :], audio_present)
        if state is None:
            picture, seen, sound, heard = (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1) for x in ends)
        else:
            picture, seen, sound, heard = (state[name][:, None] for name in STATES)
        black = torch.full(self.video_shape[1:], BLACK_UV, dtype=torch.uint8, device=video.device)
        black[: self.luma_rows] = BLACK_Y
        picture = torch.where(seen[..., None, None, None], picture, black)
        sound = torch.where(heard[..., None, None], sound, torch.full_like(sound, SILENCE))
        after = {} if state is None else {name: end[:, 0].clone() for name, end in zip(STATES, ends, strict=True)}
        return torch.cat([picture, video], dim=2), torch.cat([sound, audio], dim=2), after
