"""A recipe too large for the machine is told before it trains."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from mirasol.pipeline import fits as module
from mirasol.pipeline.fits import fits
from mirasol.pipeline.launch import config
from mirasol.pipeline.launch.config import Cluster
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.params.schema import Params
from mirasol.training.memory import budget

ONE = Cluster(devices=1)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> Params:
    """The built-in world's, whose small model is looked at for once, on a machine of 1 GiB."""
    monkeypatch.setattr(module, "SMALL", ())
    monkeypatch.setattr(module, "_memory", lambda params, devices: (float(2**30), False))
    return load_params(ROOT / "params.yaml")


def test_a_recipe_that_fits_has_no_warning(params: Params) -> None:
    assert fits(params, ONE) == ""


def test_a_recipe_that_does_not_fit_says_by_how_much(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_memory", lambda params, devices: (float(2**20), False))
    assert fits(params, ONE).startswith("warning: finetune, 4 chunks of 4 frames of 48 px, batch 16 on 1 device(s): ")


def test_the_phase_that_takes_most_memory_is_judged(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_memory", lambda params, devices: (float(2**20), False))
    losses = {"latent_weight": 0.0, "video_weight": 0.0, "audio_weight": 0.0}
    frozen = dataclasses.replace(params.finetune, trained="text_backbone", **losses)  # more operations, less is kept
    pretrain = dataclasses.replace(params.finetune, texts_per_clip=11)
    changed = dataclasses.replace(params, pretrain=pretrain, audio_pretrain=frozen, finetune=frozen)
    assert fits(changed, ONE).startswith("warning: pretrain, ")


def test_phases_alike_are_predicted_once(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    predict = budget.predict
    monkeypatch.setattr(budget, "predict", lambda job, setting: asked.append(job) or predict(job, setting))
    other = dataclasses.replace(params.finetune, lr=1e-5, text_weight=9.0)
    fits(dataclasses.replace(params, pretrain=other, audio_pretrain=params.finetune), ONE)
    assert len(asked) == 1


def test_a_phase_is_judged_by_the_processes_it_gets(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cores", lambda: 2)
    monkeypatch.setattr(config, "has_accelerator", lambda: False)
    monkeypatch.setattr(module, "_memory", lambda params, devices: (float(2**20), False))
    assert "batch 16 on 2 device(s)" in fits(params, Cluster())


def test_phases_of_other_machines_are_not_judged(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_memory", lambda params, devices: (float(2**20), False))
    assert fits(params, Cluster("slurm")) == ""


def test_clips_that_do_not_divide_are_a_warning(params: Params) -> None:
    training = dataclasses.replace(params.training, micro_batch=5)
    assert "micro_batch is 5" in fits(dataclasses.replace(params, training=training), ONE)


def test_the_demo_needs_no_torch() -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\nfrom pathlib import Path\n"
        "from mirasol.pipeline.fits import fits\nfrom mirasol.pipeline.params.load import load_params\n"
        "from mirasol.pipeline.launch.config import Cluster\n"
        f"assert fits(load_params(Path({str(ROOT / 'params.yaml')!r})), Cluster()) == ''"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
