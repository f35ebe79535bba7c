"""The weights that a phase starts from: random ones, or those of a phase that may have had other settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mirasol.core.errors import MirasolError, listing
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.weights import load_model, read_config

# Settings of a phase: they change neither the shape nor the meaning of a weight. Positions are fractions of the whole
# (decision 0065), chunks and tokens have rotary angles. `frames_per_chunk` changes the time that a patch of sound and
# a tube cover: the weights go on from there.
PHASE = {"size", "chunks", "frames_per_chunk", "audio_columns", "max_chunks", "max_text", "dropout"}
KEYS = {  # what else the user's params file sets; all other sizes follow from `model.preset`
    "vocabulary": "tokenizer",
    "mels": "clip.mels",
    "vit": "model.vit or model.preset",
    "combiner": "model.combiner",
    "latent": "model.latent",
    "num_queries": "model.num_queries",
    "queries": "model.queries",
    "overlap": "model.overlap",
    "audio_reconstruction": "model.audio_reconstruction",
}


def initial_model(model: ModelConfig, init: Path | None, seed: int) -> Mirasol:
    """A model of ``model`` with the weights in ``init``, or with random ones by the seed.

    Size, frames, chunks, longest text and dropout may differ from those in ``init`` (S 4: 224 px, then 448).

    Raises:
        MirasolError: ``init`` holds no model or one whose weights mean something else, which lists every such
            difference; or the sizes of ``model`` do not fit together.
    """
    try:
        if init is None:
            torch.manual_seed(seed)
            return Mirasol(model)
        wrong = [*_other_meanings(read_config(init), model)]
        if wrong:
            title = f"{init}: its weights do not fit the parameters; set these back, or train it again"
            raise MirasolError(listing(title, wrong))
        return load_model(init, model)
    except ValueError as error:
        raise MirasolError(f"the parameters make no model: {error}") from error


def _other_meanings(old: ModelConfig, new: ModelConfig) -> Iterator[str]:
    before, now = old.to_dict(), new.to_dict()
    if old.combiner == new.combiner == "ttm" and old.ttm_encoder != new.ttm_encoder:
        yield (
            "model.combiner: a ttm of an earlier version, without learned positions and a final norm, which no key "
            "sets back: train again, or `mirasol weights import` it, which skips the combiner"
        )
    for name in before:
        if name not in {*PHASE, "ttm_encoder"} and before[name] != now[name]:
            yield f"{KEYS.get(name, 'model.preset')}: {name} {before[name]}, now {now[name]}"
    bands = [config.audio_columns / config.frames_per_chunk for config in (old, new)]
    if bands[0] != bands[1]:  # sound against frames, not the time that either covers
        yield f"clip.audio_bands: {bands[0]:g}, now {bands[1]:g}"
