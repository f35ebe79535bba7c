"""One training order over one or several data sets, with exact proportions: a function of seed and number alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mirasol.data.loading import augment


class Mixture:
    """The data set of training sample g: set i comes ``weights[i]`` times in each window of ``sum(weights)`` samples.

    A window begins at every multiple of its length and has its own random order. The order in which ``weights`` names
    the sets decides nothing.

    Raises:
        ValueError: no weight, or one that is not a whole number of at least 1.
    """

    def __init__(self, weights: Mapping[str, int], seed: int) -> None:
        if not weights or any(w != int(w) or w < 1 for w in weights.values()):
            raise ValueError(f"weights {weights}: expected whole numbers of at least 1, one for each set")
        self.names = sorted(weights)
        self.weights = [weights[name] for name in self.names]
        self.seed = seed

    def window(self, number: int) -> NDArray[np.int64]:
        """The set of each sample in window ``number``, as an index of ``names``."""
        sets = np.repeat(np.arange(len(self.weights)), self.weights)
        return augment.draws_of(self.seed, augment.SETS, number).permutation(sets)

    def locate(self, sample: int) -> tuple[int, int]:
        """The set of ``sample``, and its number among the samples of that set."""
        if len(self.weights) == 1:
            return 0, sample
        number, position = divmod(sample, sum(self.weights))
        sets = self.window(number)
        which = int(sets[position])
        return which, number * self.weights[which] + int((sets[:position] == which).sum())

    def counts(self, samples: int) -> dict[str, int]:
        """How many of the first ``samples`` come from each set."""
        windows, rest = divmod(samples, sum(self.weights))
        begun = np.bincount(self.window(windows)[:rest], minlength=len(self.weights)).tolist()
        rows = zip(self.names, self.weights, begun, strict=True)
        return {name: windows * weight + more for name, weight, more in rows}


class ClipOrder:
    """The clip of training sample g: each set goes through its clips epoch by epoch, each epoch in a random order.

    Args:
        sets: the set of each clip, one of the names of ``mixture``.
    """

    def __init__(self, sets: Sequence[str] | NDArray[np.str_], mixture: Mixture) -> None:
        self.mixture = mixture
        self._members = [np.flatnonzero(np.array(sets) == name) for name in mixture.names]
        self._epochs: dict[int, tuple[int, NDArray[np.int64]]] = {}  # of each set: number and order

    def index(self, sample: int) -> int:
        """The clip of ``sample``, unless it is damaged."""
        which, number = self.mixture.locate(sample)
        members = self._members[which]
        epoch, position = divmod(number, len(members))
        if self._epochs.get(which, (-1,))[0] != epoch:
            self._epochs[which] = epoch, augment.permutation(self.mixture.seed, epoch, len(members), which)
        return int(members[self._epochs[which][1][position]])

    def peers(self, sample: int) -> NDArray[np.int64]:
        """The clips of the same set, sorted: one may replace the clip of ``sample`` or be mixed with it."""
        return self._members[self.mixture.locate(sample)[0]]
