"""Sound whose features the device makes: chunks of 16-bit samples, and what is to be done to their log-mel there.

Under ``clip.sampling: rate`` only: there all clips' chunks are equally long. Letters: n waveforms (2 under mixup),
T chunks, W samples of a row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import chunk_edge, window_and_hop

Box = tuple[int, int, int, int]  # columns of time, of all T*A, and mels that are hidden: first and end of each
NOTHING: Box = (0, 0, 0, 0)


@dataclass(frozen=True)
class Waveform:
    """One clip's sound, or two clips' that are mixed. The model's half of it is ``mirasol.model.batch.Waveform``."""

    chunks: NDArray[np.int16]  # [n, T, W]: each chunk behind one window of what came before it
    samples: NDArray[np.int64]  # [n, T]: the length of each chunk, 0 where there is none
    grid: tuple[int, int]  # T*A columns and M mels of its features
    masks: tuple[Box, ...] = (NOTHING,)  # n
    shares: tuple[float, ...] = (1.0,)  # n

    def later(self, by: int) -> Waveform:
        """Without the first ``by`` chunks, and with as many of silence at the end."""
        chunks, samples = np.zeros_like(self.chunks), np.zeros_like(self.samples)
        chunks[:, : chunks.shape[1] - by] = self.chunks[:, by:]
        samples[:, : samples.shape[1] - by] = self.samples[:, by:]
        return replace(self, chunks=chunks, samples=samples)

    def masked(self, box: Box) -> Waveform:
        """With one more stretch of time and band of mels hidden, of a clip that had none."""
        return replace(self, masks=(box,))

    def mixed(self, other: Waveform, share: float) -> Waveform:
        """``share`` of this one's features and the rest of the other's."""
        return Waveform(
            np.concatenate([self.chunks, other.chunks]),
            np.concatenate([self.samples, other.samples]),
            self.grid,
            self.masks + other.masks,
            (share, 1.0 - share),
        )

    def muted(self) -> Waveform:
        """Digital silence, unmasked."""
        return Waveform(np.zeros_like(self.chunks[:1]), np.zeros_like(self.samples[:1]), self.grid)


@lru_cache(maxsize=8)
def chunk_lengths(spec: ClipSpec) -> NDArray[np.int64]:
    """Samples [T] of the chunks under ``clip.sampling: rate``; they differ by one at most."""
    edges = [chunk_edge(t, spec.chunk_seconds, spec.sample_rate) for t in range(spec.chunks + 1)]
    lengths = np.diff(np.array(edges))
    lengths.flags.writeable = False  # the next call gets the same array
    return lengths


def chunks_shape(spec: ClipSpec) -> tuple[int, int]:
    """T and W: a window, and the longest chunk or a hop."""
    window, hop = window_and_hop(spec)
    return spec.chunks, window + max(hop, int(chunk_lengths(spec).max()))


def cut(samples: NDArray[np.int16], spec: ClipSpec, heard: int) -> Waveform:
    """The first ``heard`` chunks of a clip's sound [S]; sound that ends early goes on in silence.

    A chunk shorter than a hop ends a hop behind the window: there :class:`mirasol.model.logmel.LogMel` looks for it.
    """
    window, hop = window_and_hop(spec)
    lengths = np.where(np.arange(spec.chunks) < heard, chunk_lengths(spec), 0)
    ends = np.cumsum(lengths)
    padded = np.zeros(window + hop + int(ends[-1]), np.int16)  # a hop more, for what lies before a short chunk
    kept = samples[: ends[-1]]
    padded[window + hop : window + hop + len(kept)] = kept
    chunks = np.zeros(chunks_shape(spec), np.int16)
    for row, (low, high) in zip(chunks, itertools.pairwise([0, *ends[:heard]]), strict=False):
        begin = hop + min(low, high - hop)  # of the window before it, or of what fills the row up to a hop
        row[: window + hop + high - begin] = padded[begin : window + hop + high]
    return Waveform(chunks[None], lengths[None], feature_grid(spec))


def feature_grid(spec: ClipSpec) -> tuple[int, int]:
    """T*A and M of a clip's features."""
    return spec.chunks * spec.audio_columns, spec.mels
