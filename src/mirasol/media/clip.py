"""How a clip is cut into chunks (P 3.1, eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mirasol.core.fields import param


@dataclass(frozen=True)
class ClipSpec:
    """The `clip` section: T chunks of K frames, and the sound of the same times."""

    sampling: str = param(
        "rate",
        "`rate`: K frames every K/fps seconds from the start of the clip; "
        "`spread`: T*K frames spread evenly over the whole clip, whatever its length",
        choices=("rate", "spread"),
    )
    fps: float = param(8.0, "frames per second under `rate`, and of a live stream", gt=0, le=240)
    chunks: int = param(4, "T, chunks per clip", ge=1, le=4096)
    frames_per_chunk: int = param(4, "K, frames per chunk", ge=1, le=256)
    size: int = param(48, "height and width of a frame in pixels, even", ge=16, le=1024)
    sample_rate: int = param(16000, "audio samples per second", ge=4000, le=48000)
    mels: int = param(32, "mel bands of the spectrogram", ge=8, le=256)
    audio_bands: int = param(4, "pooled spectrogram columns per frame interval", ge=1, le=64)
    level: str = param(
        "absolute",
        "`absolute`: how loud a sound is can be learnt from; `relative`: each chunk's mean level is taken out, "
        "for recordings made at any gain",
        choices=("absolute", "relative"),
    )

    @property
    def frames(self) -> int:
        """N = T*K."""
        return self.chunks * self.frames_per_chunk

    @property
    def audio_columns(self) -> int:
        """A, pooled log-mel columns per chunk."""
        return self.frames_per_chunk * self.audio_bands

    @property
    def chunk_seconds(self) -> float:
        """Length of a chunk under `rate`, and of a live stream's chunk."""
        return self.frames_per_chunk / self.fps


@dataclass(frozen=True)
class View:
    """What a model sees of clips at rest: fewer pixels, chunks, or frames of a chunk; 0 for as many as they have."""

    size: int = 0
    chunks: int = 0  # the first ones
    frames_per_chunk: int = 0  # evenly spaced, from a chunk's first frame on

    def of(self, clip: ClipSpec) -> ClipSpec:
        """How the clips of ``clip`` are cut once seen like this; a chunk lasts as long as before.

        Raises:
            ValueError: the view has more than the clip, or no whole share of it.
        """
        size, chunks = self.size or clip.size, self.chunks or clip.chunks
        frames = self.frames_per_chunk or clip.frames_per_chunk
        wrong = []
        if clip.size % size or size % 2:
            wrong.append(f"size {size}: expected {clip.size} divided by a whole number, and even")
        if chunks > clip.chunks:
            wrong.append(f"chunks {chunks}: expected at most {clip.chunks}")
        if chunks < clip.chunks and clip.sampling == "spread":
            wrong.append(f"chunks {chunks} of {clip.chunks} spread over the clip: expected all of them")
        if clip.frames_per_chunk % frames:
            wrong.append(f"frames_per_chunk {frames}: expected {clip.frames_per_chunk} divided by a whole number")
        if wrong:
            raise ValueError(f"a view of clips: {'; '.join(wrong)}")
        fps = clip.fps * frames / clip.frames_per_chunk
        return replace(clip, size=size, chunks=chunks, frames_per_chunk=frames, fps=fps)
