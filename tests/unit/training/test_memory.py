"""The memory of a training step: counted before, measured, and divided among devices."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.model import random_batch, tiny_config

from mirasol.core.errors import MirasolError
from mirasol.model.config import Sizes
from mirasol.model.losses import Objective
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import RECOMPUTE, PhaseConfig
from mirasol.training.memory.budget import Job, Setting, cheapest, check_fits, predict, search, settings
from mirasol.training.memory.live import LiveBytes
from mirasol.training.memory.step import Load, step_memory
from mirasol.training.recompute import apply_recompute

ROOT = Path(__file__).parents[3]
WIDE = tiny_config(audio_reconstruction=True, vocabulary=300)
GIB = 2**30


@pytest.fixture(scope="module")
def peak_mib() -> Callable[..., float]:
    """benchmarks/common.py's, from torch's profiler."""
    spec = importlib.util.spec_from_file_location("common", ROOT / "benchmarks" / "common.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measure: Callable[..., float] = module.peak_mib
    return measure


def job(**given: Any) -> Job:
    return Job(**{"name": "tiny", "model": WIDE, "chunks": 4, "batch": 8, "gpus": 1, **given})


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_the_prediction_is_within_a_tenth_of_the_measured_peak(
    peak_mib: Callable[..., float], recompute: str, mixed: bool
) -> None:
    load = Load(16, 4, texts=2, recompute=recompute, mixed=mixed, cuda=False)
    predicted = sum(step_memory(WIDE, load).peak({}).values()) / 2**20
    torch.manual_seed(0)
    model = Mirasol(WIDE).train()
    apply_recompute(model, recompute)
    batch = random_batch(WIDE, clips=16)
    batch.tokens = torch.zeros(16, 2, WIDE.max_text, dtype=torch.int64)
    batch.answer_mask = torch.ones_like(batch.tokens, dtype=torch.bool)
    batch.complete = True

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = Objective().weighted(model(batch))
        loss.backward()
        model.zero_grad()

    assert predicted == pytest.approx(peak_mib(work), rel=0.1)


def test_storages_count_from_birth_to_end() -> None:
    live = LiveBytes([])
    with live:
        first = torch.zeros(100)
        view = first[:10]
        second = first + 1
        del first
        assert live.live["activations"] == 800
        del view
        assert live.live["activations"] == 400
        del second
    assert live.live["activations"] == 0
    assert max(sum(row) for row in live.rows) == 800


def test_each_mode_keeps_less_than_the_one_before() -> None:
    none, selective, full = (step_memory(WIDE, Load(2, 4, recompute=mode)).kept for mode in RECOMPUTE)
    assert none > selective > full > 0


def test_activations_grow_with_the_micro_batch_and_parameters_do_not() -> None:
    one, two = (predict(job(), Setting(micro_batch=clips)) for clips in (1, 2))
    assert one.parts["weights"] == two.parts["weights"]
    assert two.kept == pytest.approx(2 * one.kept, rel=0.2)


def test_shards_divide_weights_moments_and_gradients() -> None:
    copies, shards = (predict(job(gpus=4), Setting(sharding, micro_batch=1)) for sharding in ("none", "full"))
    buffers = step_memory(WIDE, Load(1, 4, accumulated=True)).buffers
    assert shards.parts["weights"] - buffers == (copies.parts["weights"] - buffers) / 4
    assert shards.parts["optimizer"] == copies.parts["optimizer"] / 4
    assert copies.parts["gathered"] == 0 < shards.parts["gathered"]
    assert copies.parts["gradients"] == copies.parts["weights"] - buffers


def test_hybrid_shards_lie_within_a_node() -> None:
    whole = predict(job(gpus=4, nodes=2), Setting("none")).parts["optimizer"]
    assert predict(job(gpus=4, nodes=2), Setting("hybrid")).parts["optimizer"] == whole / 2


def test_frozen_parts_have_neither_gradients_nor_moments() -> None:
    whole, audio = (predict(job(phase=PhaseConfig(trained=name)), Setting()) for name in ("all", "audio"))
    assert audio.parts["weights"] == whole.parts["weights"]
    assert audio.parts["optimizer"] < whole.parts["optimizer"] / 2
    assert audio.kept < whole.kept


def test_muon_has_one_moment_of_a_matrix_and_an_average_costs_another_copy() -> None:
    adam, muon = (predict(job(phase=PhaseConfig(optimizer=name)), Setting()).parts for name in ("adamw", "muon"))
    assert adam["optimizer"] / 2 < muon["optimizer"] < adam["optimizer"]
    assert predict(job(phase=PhaseConfig(ema=0.9)), Setting()).parts["average"] == pytest.approx(
        adam["optimizer"] / 2, rel=1e-6
    )


def test_settings_come_from_the_cheapest_to_the_dearest() -> None:
    found = [(s.sharding, s.recompute, s.micro_batch) for s in settings(job(gpus=4))]
    assert found[:5] == [
        *(("none", "none", 0), ("full", "none", 0), ("full", "selective", 0), ("full", "full", 0)),
        ("none", "none", 1),
    ]
    assert {s.sharding for s in settings(job())} == {"none"}


def test_the_search_ends_at_the_first_setting_that_fits() -> None:
    first, second = (predict(job(), Setting(recompute=mode)).total for mode in ("none", "selective"))
    memory = (first + second) / 2 * 8 / 7
    tried = list(search(job(), memory))
    assert cheapest(job(), memory) == tried[-1]
    assert [one.setting.recompute for one in tried] == ["none", "selective"]


def test_a_step_that_does_not_fit_is_one_error() -> None:
    found = predict(job(), Setting())
    check_fits(job(), found, GIB)
    with pytest.raises(MirasolError, match=r"tiny, 4 chunks of 4 frames of 16 px, batch 8 on 1 device.* expected at"):
        check_fits(job(), found, found.total)


def test_cuda_keeps_the_inputs_of_norms_in_fp32() -> None:
    wide = Sizes(layers=2, width=32, hidden=64, heads=2, head=16)  # behind a projection from 24, which gives bf16
    config = tiny_config(combiner_sizes=wide, latent_sizes=wide)
    cpu, cuda = (step_memory(config, Load(2, 4, cuda=cuda)) for cuda in (False, True))
    assert cuda.kept > cpu.kept
