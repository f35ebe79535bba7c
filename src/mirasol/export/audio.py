"""The audio front end as a graph: samples of a chunk to its pooled log-mel (P 3.1).

It computes :mod:`mirasol.media.log_mel` with operators that every engine has. TensorRT lacks ONNX's DFT, so one
convolution does framing, window and transform, with a cosine and a sine filter for each frequency. That is about
twenty times the work of an FFT and still little compared with the model.
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
    """S: the largest number of samples in a chunk; if the rates do not divide, some chunks have one less."""
    return math.ceil(clip.chunk_seconds * clip.sample_rate - 1e-6)


class AudioStep(nn.Module):
    """Samples of one chunk and the preceding window -> features, and the window before the next chunk."""

    waves: Tensor
    filters: Tensor

    def __init__(self, clip: ClipSpec) -> None:
        """Raises ValueError if a chunk is shorter than a hop and so has no frame."""
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
            samples: float32 [1, S] in [-1, 1], finite; ignored after the first ``count``.
            count: int64 [1], S or S - 1.
            state: from the previous chunk, or :meth:`init_state`.

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
        # the last frame of a longer chunk is outside every column of a shorter one
        weights = pooling(count // self.hop, self.columns, mel.shape[1]).to(mel.dtype)
        pooled = weights @ (mel - SILENCE) + SILENCE  # pools the level above silence, so that silence is exact
        if self.relative:
            silent = (pooled <= SILENCE + SILENT).flatten(1).all(1)[:, None, None]
            pooled = torch.where(silent, pooled, pooled - pooled.mean((1, 2), keepdim=True))
        return pooled, {"past": padded[:, count + torch.arange(self.window)]}


def _waves(window: int, bins: int) -> NDArray[np.float32]:
    """Filters [2 * bins, 1, window]: a Hann window of sum 2 times the cosines, then the sines."""
    turns = np.arange(window) / window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
    # the angle from integers, exact to the last digit
    angle = np.outer(np.arange(bins), np.arange(window)) % (2 * (bins - 1)) * (np.pi / (bins - 1))
    both = np.concatenate([np.cos(angle), np.sin(angle)]) * (hann * 2 / hann.sum())
    return np.asarray(both[:, None], np.float32)
