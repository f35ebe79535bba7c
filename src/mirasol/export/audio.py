"""The audio front end as a graph: the samples of a chunk to its pooled log-mel (P 3.1).

The numbers are those of :mod:`mirasol.media.log_mel`, made by operators that every engine has. ONNX has the
operator DFT, TensorRT has not: framing, window and transform are one convolution here, with a cosine and a sine of
each frequency as its filters. That is some twenty times the work of a fast transform, and next to nothing beside
the model.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import FLOOR, MEAN_DB, SCALE_DB, SILENCE, mel_filters, window_and_hop
from mirasol.model.chunk_transformer import StreamState
from mirasol.model.logmel import SILENT, pooling


def chunk_samples(clip: ClipSpec) -> int:
    """S: the most samples that a chunk spans. Where the rates do not divide, some chunks have one less."""
    return math.ceil(clip.chunk_seconds * clip.sample_rate - 1e-6)


class AudioStep(nn.Module):
    """Samples of one chunk and the window before them -> its features, and the window before the next chunk."""

    waves: Tensor
    filters: Tensor

    def __init__(self, clip: ClipSpec) -> None:
        """Raises ValueError where a chunk is shorter than a hop: it has no frame of its own."""
        super().__init__()
        self.window, self.hop = window_and_hop(clip)
        self.samples, self.columns = chunk_samples(clip), clip.audio_columns
        self.relative = clip.level == "relative"
        if self.samples <= self.hop:
            raise ValueError(f"a chunk has {self.samples} samples, expected more than a hop of {self.hop}")
        filters = mel_filters(clip.mels, clip.sample_rate)
        self.register_buffer("waves", torch.from_numpy(_waves(self.window, len(filters))), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def init_state(self) -> StreamState:
        """Silence before the first sample."""
        return {"past": torch.zeros(1, self.window)}

    def step(self, samples: Tensor, count: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """One chunk.

        Args:
            samples: float32 [1, S] in [-1, 1], finite; what follows the first ``count`` does not matter.
            count: int64 [1], how many there are: S or S - 1.
            state: of the chunk before, or :meth:`init_state`.

        Returns:
            Features [1, A, M] and the next state.
        """
        padded = torch.cat([state["past"], samples], dim=1)
        # frame i ends i + 1 hops after the beginning of the chunk and is a window long
        parts = F.conv1d(padded[:, None, self.hop :], self.waves, stride=self.hop)  # [1, 2 * bins, F]
        cosines, sines = parts.square().chunk(2, dim=1)
        power = (cosines + sines).transpose(1, 2)  # [1, F, bins]
        mel = torch.log10((power @ self.filters).clamp(min=FLOOR / 2))
        mel = (mel * (10.0 / SCALE_DB) - MEAN_DB / SCALE_DB).clamp(min=SILENCE)
        # a frame that only the longer chunks have is outside of every column of the shorter ones
        weights = pooling(count // self.hop, self.columns, mel.shape[1]).to(mel.dtype)
        pooled = weights @ (mel - SILENCE) + SILENCE  # what is above silence is pooled, so that silence is exact
        if self.relative:
            silent = (pooled <= SILENCE + SILENT).flatten(1).all(1)[:, None, None]
            pooled = torch.where(silent, pooled, pooled - pooled.mean((1, 2), keepdim=True))
        return pooled, {"past": padded[:, count + torch.arange(self.window)]}


def _waves(window: int, bins: int) -> NDArray[np.float32]:
    """Filters [2 * bins, 1, window]: a Hann window of sum 2 times the cosines, then the sines."""
    turns = np.arange(window) / window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
    # the angle by whole numbers, so that it is exact to the last digit
    angle = np.outer(np.arange(bins), np.arange(window)) % (2 * (bins - 1)) * (np.pi / (bins - 1))
    both = np.concatenate([np.cos(angle), np.sin(angle)]) * (hann * 2 / hann.sum())
    return np.asarray(both[:, None], np.float32)
