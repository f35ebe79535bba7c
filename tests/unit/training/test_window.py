"""Means of the steps between two lines of the curves, and the watch over numbers that are none."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from mirasol.core.errors import MirasolError
from mirasol.training.callbacks import Window


@pytest.fixture
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def filled(losses: list[float], first: int = 1) -> Window:
    window = Window(("loss",))
    for step, loss in enumerate(losses, start=first):
        window.add(step, [f"clip{step}a", f"clip{step}b"], {"loss": torch.tensor(loss), "text": torch.tensor(2.0)})
    return window


def test_a_line_holds_the_mean_of_its_steps(trainer: pl.Trainer) -> None:
    window = filled([1.0, 2.0, 6.0])
    assert window.means(trainer) == {"loss": 3.0, "text": 2.0}
    window.add(4, [], {"loss": torch.tensor(8.0), "text": torch.tensor(1.0)})
    assert window.means(trainer) == {"loss": 8.0, "text": 1.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_its_step_and_clips(bad: float) -> None:
    with pytest.raises(MirasolError, match=r"finetune: loss is (nan|inf) at step 12.*clip12a, clip12b"):
        filled([1.0, bad, 1.0], first=11).check("finetune")


def test_a_window_that_a_checkpoint_cut_gives_the_same_mean(trainer: pl.Trainer) -> None:
    whole, first = filled([0.1, 0.7, 0.3]), filled([0.1, 0.7])
    second = Window(("loss",))
    first.share(trainer)
    second.restore(first.state(), trainer)
    second.add(3, [], {"loss": torch.tensor(0.3), "text": torch.tensor(2.0)})
    assert second.means(trainer) == whole.means(trainer)


def test_fewer_processes_go_on_from_the_mean_of_all(trainer: pl.Trainer) -> None:
    window = Window(("loss",))
    window.restore({"names": ["loss"], "sums": [[2.0], [6.0]], "count": 2}, trainer)
    assert window.means(trainer) == {"loss": 2.0}


def test_a_mean_that_is_no_number_is_null_in_the_curves(trainer: pl.Trainer) -> None:
    assert filled([float("inf")]).means(trainer)["loss"] is None
