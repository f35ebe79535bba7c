"""A moving average of the weights: evaluated and exported in their place. Not in the paper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from mirasol.training.parallel import local


class Ema:
    """The average of what ``model`` trains, sharded as its weights are.

    After step n (0 for the first) it keeps the share min(``decay``, (1 + n) / (10 + n)) of itself, so that the random
    weights of the start fade at once.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.averages: dict[str, Tensor] = {}  # by name of the parameter; empty before the first step

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """This process' part of each average and of its parameter."""
        found = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if not self.averages:
            self.averages = {name: p.detach().clone() for name, p in found}
        self.averages = {name: self.averages[name].to(p.device) for name, p in found}
        return [local(average) for average in self.averages.values()], [local(p) for _, p in found]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step``."""
        averages, weights = self._pairs()
        torch._foreach_lerp_(averages, weights, 1.0 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and weights."""
        for average, weight in zip(*self._pairs(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages for its weights meanwhile."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self, prefix: str) -> dict[str, Tensor]:
        """The averages for a checkpoint."""
        return {prefix + name: average for name, average in self.averages.items()}

    def restore(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Take over what :meth:`state` returned, in processes of any number."""
        self.averages = {name.removeprefix(prefix): average for name, average in state.items()}
