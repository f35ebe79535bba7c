"""Sizes of the model. No torch here: ``params check`` reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mirasol.core.fields import param

COMBINERS = ("transformer", "ttm", "cls", "perceiver", "concat")
QUERIES = ("last", "pooled")
POOLED_COMBINERS = ("transformer", "ttm", "perceiver")  # those for which `queries: pooled` means something
RENAMED = {"combined": "num_queries"}  # keys in config.json of earlier versions
DROPPED = ("feature_mask",)  # once in config.json: settings of a training phase, which decide no weight
LATENTS = ("causal", "bidirectional", "none")
PRESETS = ("demo", "own", "tiny", "small", "base")
VITS = ("preset", "B", "L", "H")


@dataclass(frozen=True)
class ModelSpec:
    """The `model` section of params.yaml: a preset and the choices of an experiment."""

    preset: str = param("demo", "sizes of every part", choices=PRESETS)
    vit: str = param(
        "preset",
        "sizes of the ViT that video and audio share: `preset`, the preset's; `B`, `L`, `H`, those of open weights",
        choices=VITS,
    )
    combiner: str = param(
        "transformer",
        "how video and audio features are fused (P 3.2); `cls`, `perceiver` and `concat` are for ablations (P 4.1)",
        choices=COMBINERS,
    )
    latent: str = param(
        "causal",
        "the model over chunks (P 3.3); for ablations `bidirectional`, which cannot stream, and `none`, h = x",
        choices=LATENTS,
    )
    num_queries: int = param(9, "m, output features of the combiner per chunk (P 3.6: 32)", ge=1, le=1024)
    queries: str = param(
        "pooled",
        "where the m combined features start: `last`, the paper (the last m features of the chunk; learned ones for "
        "`cls` and `perceiver`); `pooled`, m added ones that start from pooled cells of the chunk's frames and its "
        "sound (not for `cls` and `concat`)",
        choices=QUERIES,
    )
    max_chunks: int = param(16, "chunks of the past that a stream remembers", ge=1, le=65536)
    overlap: int = param(
        0, "frames of the chunk before, with their sound, that a chunk also sees (P 3.3: none)", ge=0, le=255
    )
    audio_reconstruction: bool = param(False, "whether h also predicts the next chunk's sound (P 3.5, optional)")


@dataclass(frozen=True)
class Sizes:
    """A transformer: layers, width, hidden width of the MLP, heads, width of a head; epsilon of norms, gated MLP."""

    layers: int
    width: int
    hidden: int
    heads: int
    head: int
    eps: float = 1e-5
    gated: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """All settings that decide the shape of the weights; saved with them as JSON."""

    # inputs
    size: int
    frames_per_chunk: int
    mels: int
    audio_columns: int
    vocabulary: int
    # parts
    tubes: tuple[tuple[int, int, int], ...]  # (frames, height, width) of each 3D tube
    tube_strides: tuple[tuple[int, int, int], ...]  # how far apart the tubes of each shape start
    patch: int  # side of the 2D patches of a chunk's first frame, 0 for none
    audio_patch: tuple[int, int]  # (columns, mels)
    vit: Sizes
    audio_layers: int  # the audio branch's own ViT blocks
    combiner_sizes: Sizes
    latent_sizes: Sizes
    reconstruction_sizes: Sizes
    text: Sizes
    reconstruction_size: int  # side of v_small in pixels
    reconstruction_tube: tuple[int, int, int]  # (frames, height, width) of v_small that one token predicts
    ttm_sizes: Sizes  # the `Process` transformer of the TTM combiner
    ttm_memory: int  # memory tokens, the output of `Write`
    ttm_read: int  # tokens that `Read` hands to `Process`
    # choices
    combiner: str
    latent: str
    num_queries: int
    queries: str
    max_chunks: int
    max_text: int  # L, longest text in tokens
    # with defaults, so that weights saved before they existed can still be read
    cross_every: int = 1  # every how many text layers have cross-attention
    cross_hidden: int = 0  # hidden width of cross-attention's own MLP, 0 for none
    overlap: int = 0  # frames of the chunk before that a chunk also sees
    audio_reconstruction: bool = False
    ttm_encoder: bool = False  # TTM's Process has learned positions and a final norm
    motion: bool = False  # whether the first tubes' tokens also hold the motion that the camera did not make
    chunks: int = 0  # T of the clips that it was trained on, the first of those at rest; 0 for all
    dropout: float = 0.0  # in training

    @property
    def seen_frames(self) -> int:
        """Frames that a chunk sees: its own K, and those of the overlap."""
        return self.frames_per_chunk + self.overlap

    @property
    def overlap_columns(self) -> int:
        """Audio columns of the time that the overlap takes."""
        return self.overlap * self.audio_columns // self.frames_per_chunk

    @property
    def seen_columns(self) -> int:
        """Audio columns that a chunk sees: its own A, and those of the overlap."""
        return self.audio_columns + self.overlap_columns

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready mapping."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> ModelConfig:
        """The inverse of :meth:`to_dict`, for values read back from JSON; weights of earlier versions stay usable.

        Raises:
            ValueError: a key is missing or unknown.
        """
        values = {RENAMED.get(name, name): value for name, value in values.items() if name not in DROPPED}
        fields = dataclasses.fields(cls)
        needed = {f.name for f in fields if f.default is dataclasses.MISSING}
        missing, unknown = sorted(needed - set(values)), sorted(set(values) - {f.name for f in fields})
        if missing or unknown:
            raise ValueError(f"model config: missing {missing}, unknown {unknown}")
        return cls(**{name: _from_json(value) for name, value in values.items()})


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return Sizes(**value)
    return tuple(map(_from_json, value)) if isinstance(value, list | tuple) else value
