"""The sizes of the model that `mirasol model` looks at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mirasol.model.config import PRESETS

if TYPE_CHECKING:
    from mirasol.model.config import ModelConfig

PRESET_HELP = f"{', '.join(PRESETS[:-1])} or {PRESETS[-1]}; default: that of params.yaml"


def chosen_config(
    preset: str | None, file: Path, frames: int | None, size: int | None, combiner: str | None
) -> tuple[str, int, ModelConfig]:
    """Name of the preset, T, and the sizes: of the paper's inputs where S 4 has the preset, else of the params file.

    Raises:
        MirasolError: no such preset or combiner, frames that chunks do not divide, or frames or a side below 1.
        ValueError: sizes that no model has.
    """
    import dataclasses

    from mirasol.core.errors import MirasolError
    from mirasol.model.config import COMBINERS, POOLED_COMBINERS
    from mirasol.model.sizes.paper import PARAMETERS, PaperInputs, paper_config
    from mirasol.model.sizes.presets import build_config
    from mirasol.pipeline.params.load import load_params

    if preset is not None and preset not in PRESETS:
        raise MirasolError(f"unknown preset `{preset}`: expected one of {', '.join(PRESETS)}")
    if combiner is not None and combiner not in COMBINERS:
        raise MirasolError(f"unknown combiner `{combiner}`: expected one of {', '.join(COMBINERS)}")
    if frames is not None and frames < 1:
        raise MirasolError(f"{frames} frames, expected at least 1")
    if size is not None and size < 1:
        raise MirasolError(f"frames of {size} pixels, expected at least 1")
    if preset is not None and preset in PARAMETERS:
        paper = PaperInputs()
        config = paper_config(
            preset, frames=frames or paper.frames, size=size or paper.size, combiner=combiner or "transformer"
        )
        return preset, paper.chunks, _checked(config)
    params = load_params(file)
    clip = params.clip
    if frames is not None and frames % clip.chunks:
        raise MirasolError(f"{frames} frames in {clip.chunks} chunks: expected a multiple of {clip.chunks}")
    clip = dataclasses.replace(clip, frames_per_chunk=(frames or clip.frames) // clip.chunks, size=size or clip.size)
    spec = dataclasses.replace(params.model, preset=preset or params.model.preset)
    if combiner is not None:
        queries = spec.queries if combiner in POOLED_COMBINERS else "last"
        spec = dataclasses.replace(spec, combiner=combiner, queries=queries)
    config = build_config(
        spec,
        size=clip.size,
        frames_per_chunk=clip.frames_per_chunk,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        vocabulary=params.tokenizer.vocabulary,
        max_text=params.tokenizer.max_text,
    )
    return spec.preset, clip.chunks, _checked(config)


def _checked(config: ModelConfig) -> ModelConfig:
    if config.size % (2 * config.reconstruction_size):
        expected = f"a multiple of {2 * config.reconstruction_size}, twice the side of the picture reconstructed"
        raise ValueError(f"frames of {config.size} pixels, expected {expected}")
    return config
