"""Inference engines: one module each, with a ``load`` that returns a :class:`Step`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError

__all__ = ["Bound", "NoKernelError", "Step"]

Array = NDArray[np.generic]


class NoKernelError(MirasolError):
    """The engine has no kernel for one operator of a valid graph; ``reason`` names it."""

    def __init__(self, file: Path, provider: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{file}: the provider {provider!r} cannot compute it: {reason}. Use a GPU, or another bundle")


class Bound(Protocol):
    """A graph with its own buffers, for one stream and one thread at a time.

    Every state has two buffers: a step reads one and writes the other, and :meth:`swap` exchanges them without a copy.
    """

    def set(self, name: str, value: Array) -> None:
        """Write an input or a state of the next step, in the contract's shape and type."""

    def run(self) -> None:
        """Run one step; the states stay the same until :meth:`swap`."""

    def swap(self) -> None:
        """Use the states of the last step for the next."""

    def get(self, name: str) -> Array:
        """A copy of an output of the last step, or of a state by its input's name."""


class Step(Protocol):
    """One loaded graph without state between calls, shared by any number of sessions and threads."""

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs by name, as arrays that the caller owns."""

    def bind(self) -> Bound:
        """The graph with its own buffers and initial states."""
