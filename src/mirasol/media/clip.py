"""How a clip is cut into chunks (P 3.1, eq. 1). No torch here: the runtime uses it too."""

from __future__ import annotations

from dataclasses import dataclass

from mirasol.core.fields import param


@dataclass(frozen=True)
class ClipSpec:
    """The `clip` section: T chunks of K frames, and the sound of the same time limits."""

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
class TokenizerSpec:
    """The `tokenizer` section."""

    vocabulary: int = param(256, "largest number of SentencePiece pieces", ge=16, le=262144)
    max_text: int = param(48, "L, tokens of a prompt with its answer: the text cache", ge=8, le=8192)


@dataclass(frozen=True)
class ShardsSpec:
    """The `shards` section."""

    clips_per_shard: int = param(500, "clips in a tar", ge=1)
    crf: int = param(
        25, "H.264 quality when a clip is encoded again: lower is better, 6 less is about twice the bytes", ge=0, le=51
    )
    workers: int = param(2, "processes", ge=1, le=1024)
    max_rejected: float = param(0.05, "share of clips that may be unusable before the stage fails", ge=0, le=1)
    executor: str = param(
        "processes",
        "who makes the clips: `processes` of this machine, or the workers of a Dask cluster (`dask`), which see the "
        "data folder under the same path or read media by URL",
        choices=("processes", "dask"),
    )
    address: str = param("", "of the Dask scheduler, like tcp://host:8786; empty under `processes`")
    storage: str = param(
        "",
        "where the tars lie: empty for build/shards itself, or the URL of a folder like s3://bucket/shards; "
        "build/shards then holds the list alone",
    )
