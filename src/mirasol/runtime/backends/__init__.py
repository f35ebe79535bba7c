"""What runs a graph: one module per engine, each with a ``load`` that gives a :class:`Step`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError

Array = NDArray[np.generic]


class NoKernelError(MirasolError):
    """A graph is sound, but the engine cannot compute one of its operators in its type; ``reason`` says which."""

    def __init__(self, file: Path, provider: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{file}: the provider {provider!r} cannot compute it: {reason}. Use a GPU, or another bundle")


class Bound(Protocol):
    """A graph with buffers of its own, for one stream and one thread at a time.

    Inputs and outputs stay where they are. Every state has two buffers: a step reads one and writes the
    other, and :meth:`swap` exchanges them, so that no state is ever copied.
    """

    def set(self, name: str, value: Array) -> None:
        """Write an input, or what the next step finds in a state; shape and type are the contract's."""

    def run(self) -> None:
        """One step. Until :meth:`swap` the states are as before it."""

    def swap(self) -> None:
        """Let the states that the last step wrote be those of the next."""

    def get(self, name: str) -> Array:
        """A copy of an output of the last step, or of a state by its input's name."""


class Step(Protocol):
    """One loaded graph. Many sessions and threads may share it: it remembers nothing between calls."""

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs by name; the arrays returned are the caller's."""

    def bind(self) -> Bound:
        """The graph with buffers of its own, the states as before the first step."""
