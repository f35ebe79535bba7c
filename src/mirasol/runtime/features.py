"""One chunk of a stream as the graphs take it: the loader's own functions, one chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import StreamingAudio, black_frame, chunk_edge

Frames = NDArray[np.uint8]
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """What `encoder_combiner_step` is given for one chunk."""

    video: Frames  # [1, K, H*3/2, W]
    audio: Samples  # [1, A, M]
    video_present: bool
    audio_present: bool


class ChunkFeatures:
    """Frames and samples of consecutive chunks to :class:`Inputs`; remembers one window of sound."""

    def __init__(self, clip: ClipSpec, chunk_seconds: float | None = None) -> None:
        """``chunk_seconds`` where it is another than the clip's own: chunks spread over a whole file."""
        self.clip = clip
        self.chunk_seconds = chunk_seconds or clip.chunk_seconds
        self._audio = StreamingAudio(clip)
        self._black = np.repeat(black_frame(clip.size)[None], clip.frames_per_chunk, axis=0)
        self.index = 0  # of the chunk that comes next

    @property
    def samples(self) -> int:
        """How many samples the next chunk spans: it varies by one where the rates do not divide."""
        edges = [chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (self.index, self.index + 1)]
        return edges[1] - edges[0]

    def push(self, video: Frames | None, samples: Samples | None) -> Inputs:
        """The next chunk; ``None`` stands for a modality that is not there.

        Args:
            video: uint8 [K, H*3/2, W], planar YUV 4:2:0.
            samples: float32 [S], mono, ``S = self.samples``.

        Raises:
            ValueError: another shape or type, or samples that are not finite. Nothing is remembered then.
        """
        if video is not None and (video.shape != self._black.shape or video.dtype != np.uint8):
            raise ValueError(f"video: expected uint8 {self._black.shape}, got {video.dtype} {video.shape}")
        if samples is not None:
            if samples.shape != (self.samples,) or samples.dtype != np.float32:
                raise ValueError(f"samples: expected float32 {(self.samples,)}, got {samples.dtype} {samples.shape}")
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
        """Everything that is remembered, as named arrays; copy them before the next chunk."""
        return {"index": np.array(self.index, np.int64), "past": self._audio.past}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """The inverse of :meth:`snapshot`."""
        self.index = int(state["index"])
        self._audio.past[:] = state["past"]
