"""Intervals over groups: questions about one source video are not independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4_000_000  # draws held in memory at a time


def group_totals(correct: Sequence[int], groups: Sequence[str]) -> NDArray[np.int64]:
    """Right answers and questions per group: int64 [G, 2], in an order that no shuffling of the input changes."""
    if len(correct) != len(groups):
        raise ValueError(f"{len(correct)} outcomes but {len(groups)} groups")
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    totals = np.zeros((index.max(initial=-1) + 1, 2), np.int64)
    np.add.at(totals[:, 0], index, np.asarray(correct, np.int64))
    np.add.at(totals[:, 1], index, 1)
    return totals[np.lexsort((totals[:, 1], totals[:, 0]))]


def cluster_bootstrap(
    correct: Sequence[int], groups: Sequence[str], *, resamples: int, seed: int, level: float = 0.95, unit: int = 1
) -> tuple[float, float]:
    """Percentile interval of the share of right answers, by resampling whole groups.

    The draws are integers and the ends are order statistics, so the result is the same to the last digit on
    every machine. Where all groups have the same share s resampling cannot vary. The ends are then the means that
    would give so many groups s or more, and s or less, no more than a chance of (1 - level) / 2, whatever the
    distribution (Markov's inequality): where all groups are right, or all wrong, the exact binomial ends with a
    group as the unit.

    Args:
        correct: of each question 1 or 0, or parts of ``unit``.
        unit: of a question answered right.

    Raises:
        ValueError: there is no outcome, or there are not as many groups as outcomes.
    """
    totals = group_totals(correct, groups)
    if not len(totals):
        raise ValueError("an interval needs at least 1 outcome, got 0")
    tail, count = (1 - level) / 2, len(totals)
    right, asked = totals.sum(0)
    if (totals[:, 0] * asked == right * totals[:, 1]).all():
        share, end = int(right) / (int(asked) * unit), tail ** (1 / count)
        return share * end, 1 - (1 - share) * end
    generator = np.random.default_rng(seed)
    shares: list[NDArray[np.float64]] = []
    rows = max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, count, size=(min(rows, resamples - start), count))
        shares.append(totals[drawn, 0].sum(1) / (totals[drawn, 1].sum(1) * unit))
    ordered = np.sort(np.concatenate(shares))
    low = int(tail * resamples)
    return float(ordered[low]), float(ordered[resamples - 1 - low])
