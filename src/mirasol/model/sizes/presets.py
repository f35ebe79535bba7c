"""Sizes by name. `small` and `base` are the paper's (S 4); `demo` and `tiny` learn from scratch in minutes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mirasol.model.config import ModelConfig, ModelSpec, Sizes


@dataclass(frozen=True)
class Preset:
    """The parts of a :class:`ModelConfig` that do not follow from the data or from choices."""

    tubes: tuple[tuple[int, int, int], ...]
    tube_strides: tuple[tuple[int, int, int], ...]
    patch: int
    audio_patch: tuple[int, int]
    vit: Sizes
    audio_layers: int
    combiner_sizes: Sizes
    latent_sizes: Sizes
    reconstruction_sizes: Sizes
    text: Sizes
    reconstruction_size: int
    reconstruction_tube: tuple[int, int, int]
    ttm_sizes: Sizes
    ttm_memory: int
    ttm_read: int
    cross_every: int = 1
    cross_hidden: int = 0
    motion: bool = False


# "layers=8, model dims=1024, hidden dims=4096, heads=16, and head dims=64", "128M parameters" (S 4): 101 M with a
# plain MLP, 134 M = 128 * 2^20 with a gated one (docs/decisions/0017)
AUTOREGRESSIVE = Sizes(layers=8, width=1024, hidden=4096, heads=16, head=64, gated=True)
# "2 layers, 128 hidden dimension and 12 heads" (S 4); 12 heads divide neither 1024 nor 128, so 64 each
TTM_PROCESS = Sizes(layers=2, width=1024, hidden=128, heads=12, head=64)

# Public checkpoints have another epsilon of their norms than ours
VITS = {
    "B": Sizes(12, 768, 3072, 12, 64, eps=1e-6),
    "L": Sizes(24, 1024, 4096, 16, 64, eps=1e-6),
    "H": Sizes(32, 1280, 5120, 16, 80, eps=1e-6),
}


def _small(tube: tuple[int, int, int], audio_patch: tuple[int, int], sizes: Sizes) -> Preset:
    """One layer or two of ``sizes`` in every part."""
    one = dataclasses.replace(sizes, layers=1)
    return Preset(
        tubes=(tube,),
        tube_strides=(tube,),
        patch=0,
        audio_patch=audio_patch,
        vit=sizes,
        audio_layers=1,
        combiner_sizes=sizes,
        latent_sizes=one,
        reconstruction_sizes=one,
        text=sizes,
        reconstruction_size=12,
        reconstruction_tube=(tube[0], 6, 6),
        ttm_sizes=sizes,
        ttm_memory=16,
        ttm_read=16,
    )


SMALL = Preset(
    # 4*8*8*3 + 8*4*4*3 weights for each of 1280 channels: "The convolutional tubes have 1.5M parameters" (S 4)
    tubes=((4, 8, 8), (8, 4, 4)),
    tube_strides=((4, 16, 16), (8, 16, 16)),
    patch=16,
    audio_patch=(8, 16),
    vit=Sizes(24, 1024, 4096, 16, 64),  # 300 M (S 4); with the "head dims=80" of the same sentence 327 M
    audio_layers=8,
    combiner_sizes=AUTOREGRESSIVE,
    latent_sizes=AUTOREGRESSIVE,
    reconstruction_sizes=AUTOREGRESSIVE,
    text=Sizes(8, 1024, 4096, 16, 64),
    reconstruction_size=56,
    reconstruction_tube=(4, 14, 14),
    ttm_sizes=TTM_PROCESS,
    ttm_memory=256,
    ttm_read=512,
    cross_every=2,
)

PRESETS: dict[str, Preset] = {
    "demo": _small((4, 8, 8), (4, 32), Sizes(2, 96, 384, 4, 24)),
    # A few hundred own clips: chunks of 16 frames or more, few tubes in them, and the motion between their frames
    "own": dataclasses.replace(
        _small((4, 16, 16), (4, 32), Sizes(2, 96, 384, 4, 24)), tube_strides=((16, 16, 16),), motion=True
    ),
    # For ablations: short tubes, so that a chunk of two frames is enough, and few of them.
    "tiny": _small((2, 16, 16), (8, 32), Sizes(2, 64, 256, 4, 16)),
    "small": SMALL,
    "base": dataclasses.replace(
        SMALL,
        vit=Sizes(32, 1280, 5120, 16, 80),
        audio_layers=5,
        text=Sizes(18, 1536, 12288, 12, 128),
        cross_hidden=12288,  # cross-attention has its own MLP, as in Flamingo ([2] of the paper)
    ),
}


def build_config(
    spec: ModelSpec, *, size: int, frames_per_chunk: int, mels: int, audio_columns: int, vocabulary: int, max_text: int
) -> ModelConfig:
    """The sizes of a model: a preset, the choices of params.yaml, and the sizes of the data.

    Raises:
        ValueError: no preset, or no ViT, of that name.
    """
    if spec.preset not in PRESETS:
        raise ValueError(f"preset {spec.preset!r}, expected one of {sorted(PRESETS)}")
    if spec.vit != "preset" and spec.vit not in VITS:
        raise ValueError(f"vit {spec.vit!r}, expected preset or one of {sorted(VITS)}")
    sizes = vars(PRESETS[spec.preset])
    choices = {name: choice for name, choice in vars(spec).items() if name not in ("preset", "vit")}
    return ModelConfig(
        **(sizes if spec.vit == "preset" else sizes | {"vit": VITS[spec.vit]}),
        **choices,
        size=size,
        frames_per_chunk=frames_per_chunk,
        mels=mels,
        audio_columns=audio_columns,
        vocabulary=vocabulary,
        max_text=max_text,
        ttm_encoder=spec.combiner == "ttm",
    )
