"""What runs a graph: one module per engine, each with ``load(file, graph, threads) -> Step``."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Step(Protocol):
    """One loaded graph. Many sessions may share it: it remembers nothing between calls."""

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """All outputs by name; the arrays returned are the caller's."""
