"""The weights of a phase's best evaluation (`keep: best`), and when to stop waiting for a better one (`patience`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
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

    def __init__(self, runs: Path, config: PhaseConfig) -> None:
        self.folder, self.patience = runs / FOLDER, config.patience
        self.named: dict[int, int] = {}  # steps of the checkpoints that stay: of the weights that each names
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

    def saved(self, step: int, staying: Callable[[Iterable[int]], list[int]]) -> None:
        """The checkpoint of ``step`` names the best weights; ``staying`` tells which of several checkpoints stay."""
        named = self.named | {step: self.step}
        self.named = {step: named[step] for step in staying(named)}

    def tidy(self, step: int, named: Mapping[int, int]) -> None:
        """Remove weights of steps up to ``step`` that no checkpoint of ``named`` names.

        Later ones may be in the middle of their writing: this runs beside the steps.
        """
        for other in self.folder.glob("*"):
            if not other.name.isdecimal() or (int(other.name) <= step and int(other.name) not in named.values()):
                shutil.rmtree(other, ignore_errors=True)

    def hand_on(self, out: Path) -> None:
        """Write the kept weights to ``out``, each file whole."""
        for name in (CONFIG, WEIGHTS):
            with (self.folder / str(self.step) / name).open("rb") as source, atomic_write(out / name) as file:
                shutil.copyfileobj(source, file)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"step": self.step, "figures": list(self.figures), "waited": self.waited, "named": self.named}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the values that :meth:`state` returned."""
        right, loss = state["figures"]
        self.step, self.figures, self.waited = int(state["step"]), (right, loss), int(state["waited"])
        self.named = dict(state["named"])
