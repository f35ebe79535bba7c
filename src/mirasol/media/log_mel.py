"""Sound as the model sees it: standardised log-mel, pooled to a fixed number of columns per chunk (P 3.1).

numpy only, and used as it is by training, evaluation and the runtime. Letters: S samples, F frames at
100 Hz, M mels, T chunks, A columns per chunk.

Everything is causal and chunk by chunk: frame ``i`` of a chunk ends ``i + 1`` hops after the chunk's first
sample and reaches back over one window, into the chunk before or into zeros at the start. A chunk therefore
has its own grid, whatever its length, and a stream gives the same numbers as the whole clip.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
# A sine of full scale is 0 dB in its band. What lies below -80 dB (16-bit rounding lies at -100) is silence.
FLOOR = 1e-8
# Fixed affine standardisation: silence is -1, full scale is 3, ordinary sound around 0 to 2.
MEAN_DB = -60.0
SCALE_DB = 20.0
SILENCE = (10.0 * math.log10(FLOOR) - MEAN_DB) / SCALE_DB
BLACK_Y, BLACK_UV = 16, 128  # limited range, BT.601
BLOCK = 8192  # frames at a time: bounds the memory of a long clip
NEAR = 64  # frames transformed at a time: their spectrum stays in the processor's cache

Array = NDArray[np.float32]


def chunk_edge(index: int, chunk_seconds: float, sample_rate: int) -> int:
    """First sample of chunk ``index``: rounded from its time, so that long streams do not drift."""
    return int(np.floor(index * chunk_seconds * sample_rate + 0.5))


def window_and_hop(spec: ClipSpec) -> tuple[int, int]:
    """Samples of a frame, and from one frame to the next."""
    return _window(spec), round(HOP_SECONDS * spec.sample_rate)


def black_frame(size: int) -> NDArray[np.uint8]:
    """A black frame, planar YUV 4:2:0 [size*3/2, size]."""
    frame = np.full((size * 3 // 2, size), BLACK_UV, np.uint8)
    frame[:size] = BLACK_Y
    return frame


def log_mel(waveform: Array, spec: ClipSpec) -> Array:
    """Standardised log-mel [F, M] of a whole waveform [S] at 100 Hz, ``F = S // hop``, at least 1."""
    return _frames_to_mel(_with_context(waveform, spec), _frame_ends(len(waveform), spec), spec)


def pool_chunk(mel: Array, columns: int) -> Array:
    """Mean over time [F, M] -> [A, M], each frame weighted by its overlap with the column; any F >= 1."""
    return np.asarray(_pool_matrix(len(mel), columns) @ mel, np.float32)


def clip_audio(waveform: Array, spec: ClipSpec, chunk_seconds: float, chunks: int) -> Array:
    """Pooled log-mel [T, A, M] of the first ``chunks`` chunks; a waveform that ends early goes on in silence."""
    edges = [chunk_edge(t, chunk_seconds, spec.sample_rate) for t in range(chunks + 1)]
    samples = np.zeros(edges[-1], np.float32)
    kept = np.asarray(waveform[: edges[-1]], np.float32)
    samples[: len(kept)] = kept
    ends = [_frame_ends(high - low, spec) + low for low, high in itertools.pairwise(edges)]
    mel = _frames_to_mel(_with_context(samples, spec), np.concatenate(ends), spec)
    counts = {len(e) for e in ends}
    if len(counts) == 1:  # all chunks alike: one product
        frames = counts.pop()
        matrix = _pool_matrix(frames, spec.audio_columns)
        return level(np.asarray(matrix @ mel.reshape(chunks, frames, spec.mels), np.float32), spec)
    parts = np.split(mel, np.cumsum([len(e) for e in ends])[:-1])
    return level(np.stack([pool_chunk(part, spec.audio_columns) for part in parts]), spec)


def level(pooled: Array, spec: ClipSpec) -> Array:
    """Chunks [..., A, M] as ``clip.level`` wants them; ``relative`` takes out each chunk's mean, save of silence.

    How loud a recording is says where the microphone stood and how it was set before it says what was heard.
    """
    if spec.level == "absolute":
        return pooled
    silent = (pooled <= SILENCE + 1e-3).all(axis=(-2, -1), keepdims=True)
    mean = pooled.mean(axis=(-2, -1), keepdims=True, dtype=np.float64).astype(np.float32)
    return np.where(silent, pooled, pooled - mean)


class StreamingAudio:
    """The features of a stream, one chunk at a time; equal to :func:`clip_audio` of the whole."""

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        self.past = np.zeros(_window(spec), np.float32)  # the window before the next chunk: all that is remembered

    def push(self, samples: Array) -> Array:
        """Features [A, M] of the next chunk from its samples (see :func:`chunk_edge`).

        Raises:
            ValueError: ``samples`` is no waveform [S] with S >= 1.
        """
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"expected the samples [S] of one chunk, S >= 1; got shape {samples.shape}")
        window = _window(self.spec)
        padded = np.concatenate([self.past, np.asarray(samples, np.float32)])
        self.past = padded[-window:].copy()
        mel = _frames_to_mel(padded, _frame_ends(len(samples), self.spec), self.spec)
        return level(pool_chunk(mel, self.spec.audio_columns), self.spec)

    def reset(self) -> None:
        """Begin a new stream: silence before its first sample."""
        self.past[:] = 0


def mel_filters(mels: int, sample_rate: int) -> Array:
    """Triangles [bins, M] on the HTK mel scale, from 0 Hz to half the sample rate, each with peak 1.

    The transform is one window long, or doubled until every triangle has a bin near its peak: zero padding
    interpolates the spectrum where narrow low bands would otherwise be empty.
    """
    size = round(WINDOW_SECONDS * sample_rate / 2) * 2
    top = 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, mels + 2) / 2595.0) - 1.0)
    while True:
        bins = np.linspace(0.0, sample_rate / 2, size // 2 + 1)[:, None]
        rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
        filters = np.maximum(0.0, np.minimum(rising, falling))
        if filters.max(axis=0).min() >= 0.5:
            return filters.astype(np.float32)
        size *= 2


def _window(spec: ClipSpec) -> int:
    return round(WINDOW_SECONDS * spec.sample_rate)


def _frame_ends(samples: int, spec: ClipSpec) -> NDArray[np.int64]:
    """Where the frames of a chunk end, in samples from its start; never past its end."""
    hop = round(HOP_SECONDS * spec.sample_rate)
    count = max(1, samples // hop)
    return np.minimum(np.arange(1, count + 1) * hop, samples)


def _with_context(samples: Array, spec: ClipSpec) -> Array:
    return np.concatenate([np.zeros(_window(spec), np.float32), np.asarray(samples, np.float32)])


@lru_cache(maxsize=8)
def _hann_and_filters(mels: int, sample_rate: int) -> tuple[Array, Array, int]:
    window = round(WINDOW_SECONDS * sample_rate)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    filters = mel_filters(mels, sample_rate)
    return (hann * 2 / hann.sum()).astype(np.float32), filters, 2 * (len(filters) - 1)


def _frames_to_mel(padded: Array, ends: NDArray[np.int64], spec: ClipSpec) -> Array:
    """Log-mel of the windows that end at ``ends``; ``padded`` begins with one window of context."""
    hann, filters, size = _hann_and_filters(spec.mels, spec.sample_rate)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(hann))
    mel = np.empty((len(ends), spec.mels), np.float32)
    for low in range(0, len(ends), BLOCK):
        block = ends[low : low + BLOCK]
        hops = np.unique(np.diff(block))  # usually one: a plain stride is much faster than a gather
        rows = slice(block[0], block[-1] + 1, hops[0]) if len(hops) == 1 else block
        mel[low : low + BLOCK] = _power(windows[rows], hann, size) @ filters
    np.log10(np.maximum(mel, FLOOR / 2), out=mel)
    mel *= 10.0 / SCALE_DB
    mel -= MEAN_DB / SCALE_DB
    np.maximum(mel, SILENCE, out=mel)  # last, so that silence is exact
    return mel


def _power(frames: Array, hann: Array, size: int) -> Array:
    """Power spectra [F, bins] of frames [F, window]."""
    power = np.empty((len(frames), size // 2 + 1), np.float32)
    for low in range(0, len(frames), NEAR):
        spectrum = np.fft.rfft(frames[low : low + NEAR] * hann, size)
        power[low : low + NEAR] = spectrum.real**2 + spectrum.imag**2
    return power


@lru_cache(maxsize=64)
def _pool_matrix(frames: int, columns: int) -> Array:
    """Weights [A, F]: the share of each column's time that each frame covers; rows sum to 1."""
    edges = np.arange(columns + 1) * (frames / columns)
    low = np.maximum(edges[:-1, None], np.arange(frames))
    high = np.minimum(edges[1:, None], np.arange(1, frames + 1))
    weights: Array = (np.maximum(0.0, high - low) * (columns / frames)).astype(np.float32)
    return weights
