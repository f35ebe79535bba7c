"""What the three training stages share."""

from __future__ import annotations

from pathlib import Path

from mirasol.core.files import write_json
from mirasol.model.config import ModelConfig
from mirasol.model.sizes.presets import build_config
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUILD, REPORTS, RUNS, SHARDS, TOKENIZER
from mirasol.tokenizer import Tokenizer
from mirasol.training.trainer import run_phase


def model_config(params: Params) -> ModelConfig:
    """The sizes of the model that ``params`` and the trained vocabulary ask for."""
    return build_config(
        params.model,
        size=params.clip.size,
        frames_per_chunk=params.clip.frames_per_chunk,
        mels=params.clip.mels,
        audio_columns=params.clip.audio_columns,
        vocabulary=Tokenizer.load(TOKENIZER).vocabulary,
        max_text=params.tokenizer.max_text,
    )


def train(name: str, params: Params, init: Path | None) -> None:
    """Train phase ``name`` from the weights in ``init`` (random ones if ``None``) and write its metrics."""
    config, model = getattr(params, name), model_config(params)
    out, runs = BUILD / name, RUNS / name
    metrics = run_phase(name, config, params.training, params.clip, model, SHARDS, TOKENIZER, init, out, runs)
    write_json(REPORTS / f"{name}.json", metrics)
