"""What the model is fed.

Shapes: B batch, T chunks, K frames, A audio columns, M mels, W samples, n waveforms, Q texts, L tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Waveform:
    """Sound whose log-mel the device makes (:class:`mirasol.model.logmel.LogMel`), and what is done to that there.

    n is 1, or 2 where clips are mixed.
    """

    chunks: Tensor  # int16 [B, n, T, W]: each chunk behind one window of what came before it
    samples: Tensor  # int64 [B, n, T]: the length of each chunk
    masks: Tensor  # int64 [B, n, 4]: hidden are columns [0]..[1] of all T*A, and mels [2]..[3]; their ends exclusive
    shares: Tensor  # float32 [B, n]: of each in the sum

    def to(self, device: torch.device | str) -> Waveform:
        """The same on ``device``."""
        return Waveform(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


@dataclass
class Batch:
    """One batch of clips, each with Q texts (prompt and answer).

    ``video`` holds planar YUV 4:2:0 frames as PyAV hands them over (limited range, BT.601): rows
    0..H-1 are Y, the next H/4 rows U, the last H/4 rows V.
    """

    video: Tensor  # uint8 [B, T, K, H*3/2, W]
    audio: Tensor  # float32 [B, T, A, M], standardised pooled log-mel; empty where `waveform` stands for it
    video_present: Tensor  # bool [B, T]
    audio_present: Tensor  # bool [B, T]
    tokens: Tensor  # int64 [B, Q, L]: bos, prompt, answer mark, answer, eos, padding
    answer_mask: Tensor  # bool [B, Q, L]: True where a token is to be predicted (answer and eos)
    text_weight: Tensor  # float32 [B, Q]: weight of a text in the loss, 0 for padding
    keys: list[str] = field(default_factory=list)  # B clip keys
    example_ids: list[list[str]] = field(default_factory=list)  # B x Q example ids, "" for padding
    complete: bool | None = None  # whether no chunk lacks anything; None: look at the presence
    waveform: Waveform | None = None  # the model makes log-mel of it

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``.

        What is present is looked up before: a GPU would have to be waited for.
        """
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        if self.waveform is not None:
            moved["waveform"] = self.waveform.to(device)
        if self.complete is None and self.video_present.device.type == "cpu":
            moved["complete"] = bool(self.video_present.all()) and bool(self.audio_present.all())
        return dataclasses.replace(self, **moved)
