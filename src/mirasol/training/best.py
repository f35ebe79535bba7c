"""The weights of a phase's best evaluation (`keep: best`), and when to stop waiting for a better one (`patience`)."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirasol.core.files import atomic_write
from mirasol.training.config import PhaseConfig
from mirasol.training.module import PhaseModule
from mirasol.training.weights import CONFIG, WEIGHTS, save_weights

FOLDER = "best"  # in the folder of a run; a folder for each step in it


class BestWeights:
    """Keeps the weights of the evaluation with the most right answers, the lowest text loss among equals.

    Weights of a step are on the disk before the checkpoint that names it, and go after the last one that does: a kill
    at any point loses none.
    """

    def __init__(self, runs: Path, config: PhaseConfig, checkpoints: int = 1) -> None:
        """``checkpoints``: how many are kept, each of which names weights."""
        self.folder, self.patience = runs / FOLDER, config.patience
        self.named: deque[int] = deque(maxlen=checkpoints)  # steps whose weights the kept checkpoints name
        self.step, self.figures = 0, (-1.0, 0.0)  # of the best evaluation; 0: none yet
        self.waited = 0  # evaluations since then

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations in a row were no better."""
        return 0 < self.patience <= self.waited

    def offer(self, step: int, val: Mapping[str, Any], module: PhaseModule, *, leader: bool) -> None:
        """Keep the weights that gave ``val``, if it is the best; every process calls it."""
        figures = (float(val["exact_match"]), -float(val["text"]))
        if self.step and not figures > self.figures:
            self.waited += 1
            return
        self.step, self.figures, self.waited = step, figures, 0
        with module.evaluated():
            save_weights(self.folder / str(step), module.model, leader=leader)

    def saved(self) -> None:
        """A checkpoint names the best weights."""
        self.named.append(self.step)

    def tidy(self) -> None:
        """Remove the weights that no checkpoint names; all of them before the first evaluation."""
        for other in self.folder.glob("*"):
            if other.name not in map(str, {self.step, *self.named}):
                shutil.rmtree(other, ignore_errors=True)

    def hand_on(self, out: Path) -> None:
        """Write the kept weights to ``out``, each file whole."""
        for name in (CONFIG, WEIGHTS):
            with (self.folder / str(self.step) / name).open("rb") as source, atomic_write(out / name) as file:
                shutil.copyfileobj(source, file)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        named = list(self.named)
        return {"step": self.step, "figures": list(self.figures), "waited": self.waited, "named": named}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the values that :meth:`state` returned."""
        right, loss = state["figures"]
        self.step, self.figures, self.waited = int(state["step"]), (right, loss), int(state["waited"])
        self.named.extend(state["named"])
