"""One training order over several sets of shards, with exact proportions: a function of seed and number alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mirasol.data.loading import augment
from mirasol.data.loading.loader import TrainingLoader
from mirasol.data.loading.samples import Sample, TrainingSamples


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Which set training sample g comes from: set i ``weights[i]`` times in each window of ``sum(weights)``.

    A window begins at every multiple of its length, and its order is drawn anew. Each set goes through its own
    endless order, one sample after the other, whatever the others are.
    """

    weights: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        """Check the weights.

        Raises:
            ValueError: there is none, or one is no whole number of at least 1.
        """
        if not self.weights or any(w != int(w) or w < 1 for w in self.weights):
            raise ValueError(f"weights {self.weights}: expected whole numbers of at least 1, one for each set")

    def place(self, sample: int) -> tuple[int, int]:
        """The set of sample number ``sample``, and the number that it has among the samples of that set."""
        window, position = divmod(sample, sum(self.weights))
        order = np.repeat(np.arange(len(self.weights)), self.weights)
        order = augment.other_draws(self.seed, augment.SETS, window).permutation(order)
        which = int(order[position])
        return which, window * self.weights[which] + int((order[:position] == which).sum())


class MixedSamples(Dataset[Sample]):
    """Training sample g of several sets together."""

    def __init__(self, sets: Sequence[TrainingSamples], mixture: Mixture) -> None:
        """All sets are cut, asked and augmented alike; give each its own seed.

        Raises:
            ValueError: the sets and weights differ in number, or the sets in clip, text length, tasks or Q.
        """
        if len(sets) != len(mixture.weights):
            raise ValueError(f"{len(sets)} sets and {len(mixture.weights)} weights: expected one weight for each set")
        first = sets[0]
        for other in sets[1:]:
            for name in ("spec", "max_text", "tasks", "width", "waveform"):
                ours, theirs = getattr(first, name), getattr(other, name)
                if ours != theirs:
                    raise ValueError(f"sets with different {name} make no batch: {ours} and {theirs}")
        self.sets, self.mixture = sets, mixture
        self.spec, self.max_text, self.tasks, self.width = first.spec, first.max_text, first.tasks, first.width
        self.waveform = first.waveform

    @property
    def total(self) -> int:
        """Clips of all splits."""
        return sum(samples.total for samples in self.sets)

    def key(self, sample: int) -> str:
        """As :meth:`TrainingSamples.key`."""
        which, number = self.mixture.place(sample)
        return self.sets[which].key(number)

    def __getitem__(self, sample: int) -> Sample:
        return self.read(sample)

    def read(self, sample: int, into: NDArray[np.uint8] | None = None) -> Sample:
        """As :meth:`TrainingSamples.read`."""
        which, number = self.mixture.place(sample)
        found = self.sets[which].read(number, into)
        return dataclasses.replace(found, damage=[dataclasses.replace(d, sample=sample) for d in found.damage])


def mix(loaders: Sequence[TrainingLoader], weights: Sequence[int], seed: int) -> TrainingLoader:
    """One loader over the sets of several, ``weights[i]`` of the i-th in each window of ``sum(weights)`` samples.

    Batch size, ranks, first sample, workers and what damaged clips are told to are those of the first. Make the
    loaders with different seeds, or sets of one size go in step.

    Raises:
        ValueError: weights and loaders do not fit, or the sets make no common batch (see :class:`MixedSamples`).
    """
    first = loaders[0]
    sets = [loader.samples for loader in loaders if isinstance(loader.samples, TrainingSamples)]
    samples = MixedSamples(sets, Mixture(tuple(weights), seed))
    return TrainingLoader(samples, first.order, first.caption_weight, first.workers, first.failures)
