"""From frames and samples of a chunk to inputs of the graphs, with the loader's functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import StreamingAudio, black_frame, chunk_edge

Frames = NDArray[np.uint8]
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """Inputs of `encoder_combiner_step` for one chunk."""

    video: Frames  # [1, K, H*3/2, W]
    audio: Samples  # [1, A, M]
    video_present: bool
    audio_present: bool


def _check(name: str, array: object, kind: type[np.generic], shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected {np.dtype(kind)} {shape}, got {type(array).__name__}")
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{name}: expected {np.dtype(kind)} {shape}, got {array.dtype} {array.shape}")


def _checked(seconds: object, clip: ClipSpec) -> float:
    """``seconds`` as the length of a chunk."""
    if not isinstance(seconds, int | float) or not 1 / clip.sample_rate <= seconds < math.inf:
        raise MirasolError(
            f"chunk_seconds is {seconds!r}: expected seconds of at least a sample, 1/{clip.sample_rate}, or None for "
            f"the bundle's {clip.chunk_seconds:g}"
        )
    return float(seconds)


class ChunkFeatures:
    """Frames and samples of consecutive chunks to :class:`Inputs`; keeps one window of sound.

    ``chunk_seconds`` differs from the clip's where chunks are spread over a whole file.
    """

    def __init__(self, clip: ClipSpec, chunk_seconds: float | None = None) -> None:
        self.clip = clip
        self.chunk_seconds = clip.chunk_seconds if chunk_seconds is None else _checked(chunk_seconds, clip)
        self._audio = StreamingAudio(clip)
        self._black = np.repeat(black_frame(clip.size)[None], clip.frames_per_chunk, axis=0)
        self.index = 0  # of the chunk that comes next

    @property
    def samples(self) -> int:
        """Number of samples in the next chunk; varies by one if the rates do not divide."""
        edges = [chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (self.index, self.index + 1)]
        return edges[1] - edges[0]

    def push(self, video: Frames | None, samples: Samples | None) -> Inputs:
        """Convert the next chunk; ``None`` stands for a missing modality.

        Args:
            video: uint8 [K, H*3/2, W], planar YUV 4:2:0.
            samples: float32 [S], mono, ``S = self.samples``.

        Raises:
            ValueError: another shape or type, or samples that are not finite; the state is unchanged.
        """
        if video is not None:
            _check("video", video, np.uint8, self._black.shape)
        if samples is not None:
            _check("samples", samples, np.float32, (self.samples,))
            if not np.isfinite(samples).all():
                raise ValueError("samples: some are not finite")
        audio = self._audio.push(samples if samples is not None else np.zeros(self.samples, np.float32))
        self.index += 1
        return Inputs(
            video=(video if video is not None else self._black)[None],
            audio=audio[None],
            video_present=video is not None,
            audio_present=samples is not None,
        )

    def reset(self) -> None:
        """Begin a new stream."""
        self._audio.reset()
        self.index = 0

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The state as named arrays; copy them before the next chunk."""
        return {"index": np.array(self.index, np.int64), "past": self._audio.past}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """The inverse of :meth:`snapshot`."""
        self.index = int(state["index"])
        self._audio.past[:] = state["past"]
