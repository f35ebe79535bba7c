"""What the model is fed. Shapes: B batch, T chunks, K frames, A audio columns, M mels, Q texts, L tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """One batch of clips, each with Q texts (prompt and answer).

    ``video`` holds planar YUV 4:2:0 frames as PyAV hands them over (limited range, BT.601): rows
    0..H-1 are Y, the next H/4 rows U, the last H/4 rows V.
    """

    video: Tensor  # uint8 [B, T, K, H*3/2, W]
    audio: Tensor  # float32 [B, T, A, M], standardised pooled log-mel
    video_present: Tensor  # bool [B, T]
    audio_present: Tensor  # bool [B, T]
    tokens: Tensor  # int64 [B, Q, L]: bos, prompt, answer mark, answer, eos, padding
    answer_mask: Tensor  # bool [B, Q, L]: True where a token is to be predicted (answer and eos)
    text_weight: Tensor  # float32 [B, Q]: weight of a text in the loss, 0 for padding
    keys: list[str] = field(default_factory=list)  # B clip keys
    example_ids: list[list[str]] = field(default_factory=list)  # B x Q example ids, "" for padding
    complete: bool | None = None  # whether no chunk lacks anything; None: look at the presence

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``.

        What is present is looked up before: a GPU would have to be waited for.
        """
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        if self.complete is None and self.video_present.device.type == "cpu":
            moved["complete"] = bool(self.video_present.all()) and bool(self.audio_present.all())
        return dataclasses.replace(self, **moved)
