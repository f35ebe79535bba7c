"""Phases of different sizes on one set of shards: 48 px and 4 chunks, then 96 px and 8 chunks; and a bundle of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from support.training import small_world

from mirasol.core.errors import MirasolError
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.config import ModelSpec, Sizes
from mirasol.model.sizes.presets import PRESETS
from mirasol.pipeline import paths, stages
from mirasol.pipeline.params.schema import Params
from mirasol.runtime.contract import read_contract
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.training.config import PhaseConfig, TrainingConfig
from mirasol.training.start import initial_model
from mirasol.training.weights import load_model, read_config

SMALL = {"size": 48, "chunks": 4, "max_text": 40}
PHASE = PhaseConfig(steps=2, batch_size=2, warmup=0, checkpoint_every=2, val_clips=2, texts_per_clip=2)
PARTS = dict.fromkeys(("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "text"), Sizes(1, 32, 32, 4, 8))
PARAMS = Params(
    clip=ClipSpec(fps=16.0, chunks=8, size=96),
    model=ModelSpec(),
    training=TrainingConfig(threads=1, accelerator="cpu", logger="none"),
    pretrain=dataclasses.replace(PHASE, tasks="caption", **SMALL),
    audio_pretrain=dataclasses.replace(PHASE, tasks="audio_class", trained="audio", **SMALL),
    finetune=dataclasses.replace(PHASE, dropout=0.1, epochs=1, steps=0, max_chunks=8),
    evaluate=EvaluateSpec(max_answer=12, resamples=10),
    export=ExportSpec(clips=1, precisions=""),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose three phases are trained."""
    folder = small_world(tmp_path_factory.mktemp("views"))
    build_shards(folder / "data", folder / paths.SHARDS, PARAMS.clip, ShardsSpec(workers=1))
    (folder / paths.TOKENIZER).parent.mkdir(parents=True)
    (folder / "tokenizer.json").rename(folder / paths.TOKENIZER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(PRESETS, "demo", dataclasses.replace(PRESETS["demo"], **PARTS))
        for stage in (stages.pretrain, stages.audio_pretrain, stages.finetune):
            stage(PARAMS)
    return folder


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_each_phase_has_its_own_settings_and_the_weights_of_the_one_before(project: Path) -> None:
    small, large = read_config(paths.AUDIO_PRETRAIN), read_config(paths.FINETUNE)
    assert (small.size, small.chunks, small.max_text, small.max_chunks, small.dropout) == (48, 4, 40, 16, 0.0)
    assert (large.size, large.chunks, large.max_text, large.max_chunks, large.dropout) == (96, 0, 48, 8, 0.1)
    before, after = load_model(paths.AUDIO_PRETRAIN), initial_model(large, paths.AUDIO_PRETRAIN, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_epochs_become_steps(project: Path) -> None:
    report = json.loads((paths.REPORTS / "finetune.json").read_text())
    index = json.loads((paths.SHARDS / "shards.json").read_text())
    assert report["steps"] == -(-sum(tar["clips"] for tar in index["splits"]["train"]) // 2)


def test_the_model_is_evaluated_in_its_own_view(project: Path) -> None:
    stages.evaluate(PARAMS)
    report = json.loads((paths.REPORTS / "eval.json").read_text())
    assert report["missing"] == []
    assert report["split"] == "test"


@pytest.fixture
def smaller(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with the weights of the smaller view as its last ones."""
    monkeypatch.setattr(paths, "FINETUNE", paths.PRETRAIN)
    return project


def test_a_smaller_view_is_evaluated(smaller: Path) -> None:
    stages.evaluate(PARAMS)
    assert json.loads((paths.REPORTS / "eval.json").read_text())["missing"] == []


@pytest.mark.slow
def test_a_smaller_view_is_exported_as_it_was_trained(smaller: Path) -> None:
    stages.export(PARAMS)
    contract = read_contract(paths.BUNDLE)
    assert contract.clip == dataclasses.replace(PARAMS.clip, size=48, chunks=4)
    assert contract.model.max_text == 40


def test_weights_that_mean_something_else_are_refused_with_every_difference(project: Path) -> None:
    large = read_config(paths.FINETUNE)
    other = dataclasses.replace(large, combiner="ttm", num_queries=4, audio_columns=32)
    with pytest.raises(MirasolError) as caught:
        initial_model(other, paths.PRETRAIN, seed=1)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{paths.PRETRAIN}: its weights do not fit the parameters")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "model.combiner",
        "model.num_queries",
        "clip.audio_bands",
    ]


def test_a_warm_up_longer_than_the_epochs_is_refused(project: Path) -> None:
    params = dataclasses.replace(PARAMS, finetune=dataclasses.replace(PARAMS.finetune, warmup=500))
    with pytest.raises(MirasolError, match=r"finetune.warmup is 500, expected less than \d+: the steps of"):
        stages.finetune(params)
