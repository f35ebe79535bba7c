"""The input of the model, and the latents that it makes of a batch.

Shapes: B batch, T chunks, K frames, A audio columns, M mels, W samples, n waveforms, Q texts, L tokens, d width,
m features per chunk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Waveform:
    """Sound for :class:`mirasol.model.logmel.LogMel`, and its augmentation on the device.

    n is 1, or 2 where clips are mixed.
    """

    chunks: Tensor  # int16 [B, n, T, W]: each chunk after one window of the sound before it
    samples: Tensor  # int64 [B, n, T]: the length of each chunk
    masks: Tensor  # int64 [B, n, 4]: hidden are columns [0]..[1] of all T*A, and mels [2]..[3]; ends are exclusive
    shares: Tensor  # float32 [B, n]: the weight of each waveform in the sum


@dataclass
class TextTargets:
    """The texts of a batch as the decoder reads them in training, and the tokens that they predict.

    The texts of a clip stand in one row of P tokens, without the padding between them. They predict N tokens in all,
    S of the clip that has most; see :func:`text_targets`.
    """

    packed: Tensor  # int64 [B, P], q*L + l of each token of the row; then any others as padding
    owners: Tensor  # int64 [B, P], the text q of each token; Q for padding
    positions: Tensor  # int64 [B, S], index in the row of the token before each predicted one; then any as padding
    rows: Tensor  # int64 [N], those of the B*S positions that are no padding
    tokens: Tensor  # int64 [N], the tokens to predict
    texts: Tensor  # int64 [N], the text b*Q + q of each


ROUND = 8  # lengths of packed rows are multiples of it: fewer shapes to compile for


def text_targets(tokens: Tensor, answer_mask: Tensor) -> TextTargets:
    """Which tokens [B, Q, L] are predicted, each from the one before it: those that ``answer_mask`` marks.

    The collator calls it: on a GPU, the number of targets would make the host wait.
    """
    _, texts, length = tokens.shape
    predicted = answer_mask[:, :, 1:]  # of the token at l + 1, by the token at l
    needed = predicted.flip(-1).cummax(dim=-1).values.flip(-1)  # tokens up to the last that predicts
    packed, real = _front(F.pad(needed, (0, 1)).flatten(1), ROUND)
    owners = torch.where(real, packed // length, texts)
    before = F.pad(predicted, (0, 1)).flatten(1).gather(1, packed) & real
    positions, counted = _front(before, 1)
    following = tokens.flatten(1).gather(1, (packed + 1).clamp(max=texts * length - 1)).gather(1, positions)
    clip = torch.arange(len(tokens), device=tokens.device)[:, None] * texts
    text = clip + owners.gather(1, positions)
    rows = counted.flatten().nonzero()[:, 0]
    return TextTargets(packed, owners, positions, rows, following[counted], text[counted])


def _front(marked: Tensor, multiple: int) -> tuple[Tensor, Tensor]:
    """The marked columns of each row of bool [B, N] in their order, then others, int64 [B, S]; and which are marked."""
    counts = marked.sum(dim=1)
    most = -(-int(counts.max()) // multiple) * multiple
    columns = marked.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return columns, torch.arange(columns.shape[1], device=marked.device) < counts[:, None]


@dataclass
class Batch:
    """One batch of clips, each with Q texts (prompt and answer); Q is 0 where no clip has one.

    ``video`` holds planar YUV 4:2:0 frames as PyAV decodes them (limited range, BT.601): rows
    0..H-1 are Y, the next H/4 rows U, the last H/4 rows V.
    """

    video: Tensor  # uint8 [B, T, K, H*3/2, W]
    audio: Tensor  # float32 [B, T, A, M], standardised pooled log-mel; empty with a `waveform`
    video_present: Tensor  # bool [B, T]
    audio_present: Tensor  # bool [B, T]
    tokens: Tensor  # int64 [B, Q, L]: bos, prompt, answer mark, answer, eos, padding
    answer_mask: Tensor  # bool [B, Q, L]: True for tokens to predict (answer and eos)
    text_weight: Tensor  # float32 [B, Q]: weight of a text in the loss, 0 for padding
    keys: list[str] = field(default_factory=list)  # B clip keys
    example_ids: list[list[str]] = field(default_factory=list)  # B x Q example ids, "" for padding
    complete: bool | None = None  # whether every chunk has video and audio; None: unknown
    waveform: Waveform | None = None  # the model makes log-mel of it
    targets: TextTargets | None = None  # of `tokens` and `answer_mask`; None: the model makes them
    masked: Tensor | None = None  # bool [B, T, m], features of x that the latent model does not see (P 3.6)
    # False: no clip of the data set, on any process, has the modality, so that its branch does not run
    has_video: bool = True
    has_audio: bool = True

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``.

        Sets ``complete`` from tensors on the CPU: on a GPU, reading the presence would make the host wait.
        """
        complete = self.complete
        if complete is None and self.video_present.device.type == "cpu":
            complete = bool(self.video_present.all()) and bool(self.audio_present.all())
        moved = _changed(self, lambda tensor: tensor.to(device, non_blocking=True))
        return dataclasses.replace(moved, complete=complete)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies while the host goes on; a DataLoader calls it.

        Raises:
            RuntimeError: this machine has no accelerator.
        """
        return _changed(self, Tensor.pin_memory)


@dataclass
class Encoded:
    """The aligned model's view of a batch."""

    x: Tensor  # [B, T, m, d], combined features
    h: Tensor  # [B, T, m, d], latents
    present: Tensor  # bool [B, T], chunks that hold video or audio


T = TypeVar("T", bound=Waveform | TextTargets | Batch)


def _changed(value: T, change: Callable[[Tensor], Tensor]) -> T:
    changed: dict[str, Any] = {}
    for name, part in vars(value).items():
        if isinstance(part, Tensor):
            changed[name] = change(part)
        elif isinstance(part, Waveform | TextTargets):
            changed[name] = _changed(part, change)
    return dataclasses.replace(value, **changed)
