"""A tiny project of the built-in world, made once: 24 clips, shards, tokenizer, a model that has learnt nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mirasol.data.manifest import read_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.world.make import make_world
from mirasol.media.clip import ClipSpec
from mirasol.model.config import ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer
from mirasol.training.weights import save_weights


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and not to be changed: take ``project``."""
    folder = tmp_path_factory.mktemp("made")
    clip = ClipSpec()
    make_world(folder / "data", clips=8, seed=1, workers=1)
    build_shards(folder / "data", folder / "build/shards", clip, ShardsSpec(workers=1))
    examples = read_manifest(folder / "data/manifest.jsonl")
    texts = [text for e in examples for text in (e.prompt, *e.answers)]
    path = folder / "build/tokenizer/tokenizer.json"
    train_tokenizer(texts, TokenizerSpec(vocabulary=200), path)
    words = Tokenizer.load(path)
    config = build_config(
        ModelSpec(),
        size=clip.size,
        frames_per_chunk=clip.frames_per_chunk,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        vocabulary=words.vocabulary,
        max_text=words.max_text,
    )
    torch.manual_seed(0)
    model = Mirasol(config)
    with torch.no_grad():  # large enough weights that sound and picture change the answers
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    save_weights(folder / "build/finetune", model)
    return folder


@pytest.fixture
def project(made_project: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made_project, tmp_path / "project"))
