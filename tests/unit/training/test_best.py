"""The best weights stay as long as a checkpoint names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirasol.training.best import BestWeights
from mirasol.training.config import PhaseConfig
from mirasol.training.resume import Checkpoints


@pytest.fixture
def best(tmp_path: Path) -> BestWeights:
    """Weights of steps 10, 30 and 50, each better than those before; checkpoints each 10 steps up to 50."""
    found = BestWeights(tmp_path, PhaseConfig(keep="best"))
    checkpoints = Checkpoints(tmp_path, 2, 20)
    for step in range(10, 60, 10):
        if step in (10, 30, 50):
            (found.folder / str(step)).mkdir(parents=True)
            found.step = step
        found.saved(step, checkpoints.staying)
    return found


def kept(best: BestWeights) -> set[str]:
    return {path.name for path in best.folder.iterdir()}


def test_a_checkpoint_that_stays_for_good_keeps_its_weights(best: BestWeights) -> None:
    assert best.named == {50: 50, 40: 30, 20: 10}


def test_weights_that_no_checkpoint_names_go(best: BestWeights) -> None:
    best.tidy(50, {50: 50, 40: 30})
    assert kept(best) == {"30", "50"}


def test_weights_that_are_written_beside_the_save_stay(best: BestWeights) -> None:
    best.tidy(40, {40: 30, 30: 30})
    assert kept(best) == {"30", "50"}


def test_a_resumed_run_knows_which_weights_its_checkpoints_name(best: BestWeights, tmp_path: Path) -> None:
    best.figures = (0.5, -1.0)
    again = BestWeights(tmp_path, PhaseConfig(keep="best"))
    again.restore(best.state())
    assert again.named == best.named
