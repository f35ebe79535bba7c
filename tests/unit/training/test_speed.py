"""Speed, waiting, memory and work of training, apart from the curves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.model import random_batch, tiny_model
from support.training import train

from mirasol.model.batch import Batch, text_targets
from mirasol.model.sizes.accounting import forward_flops, training_flops
from mirasol.model.sizes.cards import peak_tflops
from mirasol.training import speed
from mirasol.training.config import PhaseConfig
from mirasol.training.curves import read_lines
from mirasol.training.phases import freeze
from mirasol.training.speed import Stopwatch, peak_memory, step_flops

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the stopwatch: its only value."""
    now = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    return now


def test_the_time_before_a_step_is_waiting(clock: list[float]) -> None:
    watch = Stopwatch(CPU)
    for _ in range(4):
        clock[0] += 1
        watch.step_begins()
        clock[0] += 3
        watch.step_ends()
    assert watch.read() == (4.0, 0.25)


def test_an_evaluation_does_not_count(clock: list[float]) -> None:
    watch = Stopwatch(CPU)
    watch.step_begins()
    watch.step_ends()
    clock[0] += 1000
    watch.resume()
    watch.step_begins()
    clock[0] += 2
    watch.step_ends()
    assert watch.read() == (2.0, 0.0)


def test_a_line_names_the_slowest_process_and_the_median() -> None:
    watch = Stopwatch(CPU)
    every = torch.tensor([[1.0, 0.1, 2.0], [1.5, 0.0, 3.0], [4.0, 0.9, 1.0]])
    assert watch.line(every, 8, 0) == {
        "clips_per_second": 2.0, "wait_share": 0.9, "step_ms": 1500.0, "slowest_step_ms": 4000.0, "memory_gib": 3.0,
    }  # fmt: skip


def test_mfu_is_the_work_over_the_peak_of_the_card() -> None:
    watch = Stopwatch(CPU)
    watch.peak = 2.0  # TFLOP/s
    assert watch.line(torch.tensor([2.0, 0.0, 1.0]), 8, 10**12)["mfu"] == 0.25


def test_cards_are_known_by_a_part_of_their_name() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA H100 PCIe") == 756
    assert peak_tflops("something else") is None


def test_the_work_of_a_step_is_three_passes_where_all_learn() -> None:
    model = tiny_model()
    batch = random_batch(model.config)
    clips, chunks = batch.video_present.shape
    assert step_flops(model, batch) == clips * training_flops(model.config, chunks, *texts_of(batch))


def texts_of(batch: Batch) -> tuple[list[int], int]:
    """Lengths of a clip's texts, as if they were equal, and the tokens that they predict."""
    targets, texts = text_targets(batch.tokens, batch.answer_mask), batch.tokens.shape[1]
    return [-(-targets.packed.shape[1] // texts)] * texts, targets.positions.shape[1]


def test_frozen_parts_count_as_they_train() -> None:
    model = tiny_model()
    batch = random_batch(model.config)
    freeze(model, PhaseConfig(trained="audio"))
    clips, chunks = batch.video_present.shape
    parts = forward_flops(model.config, chunks, *texts_of(batch))
    behind = sum(parts[part] for part in ("combiner", "latent", "text"))
    expected = parts["tubes"] + parts["video ViT"] + 3 * parts["audio"] + 2 * behind
    assert step_flops(model, batch, reconstruct=False) == clips * expected


def test_peak_memory_is_that_of_the_process() -> None:
    assert peak_memory(CPU) > 2**20


def test_a_run_writes_its_speed_beside_the_curves(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path)
    lines = read_lines(tmp_path / "runs" / "finetune" / "speed.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert set(line) == {"step", "clips_per_second", "wait_share", "step_ms", "slowest_step_ms", "memory_gib"}
        assert 0 <= line["wait_share"] < 1 and line["clips_per_second"] > 0
