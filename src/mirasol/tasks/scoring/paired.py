"""Two models on the same questions: the difference with its interval, exact tests, several benchmarks, several seeds.

Credits are whole numbers (1 or 0 for right or wrong, or a finer unit), so that sums are exact and fixed predictions
give the same digits in any order and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4_000_000  # draws held in memory at a time


@dataclass(frozen=True)
class Paired:
    """The difference of two scores, B minus A, on the same questions."""

    difference: float
    interval: tuple[float, float]
    p: float  # two-sided, of the same draws: below 1 - level where the interval leaves out zero


@dataclass(frozen=True)
class Interval:
    """A difference with its standard error and its interval."""

    difference: float
    error: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Runs:
    """The difference of two recipes, B minus A, each trained several times."""

    questions: Paired  # other questions, these very runs
    seeds: Interval | None  # other runs, these very questions; None with one run on a side
    both: Interval | None  # other runs and other questions


def paired_totals(
    a: NDArray[np.int64], b: NDArray[np.int64], groups: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Per group the credits of B less those of A, and the questions: int64 [G, 2], ordered by the group's name.

    Raises:
        ValueError: the three differ in length, or are empty.
    """
    if not len(a) == len(b) == len(groups) or not len(groups):
        raise ValueError(f"expected as many credits as groups and at least 1, got {len(a)}, {len(b)}, {len(groups)}")
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    totals = np.zeros((len(names), 2), np.int64)
    np.add.at(totals[:, 0], index, b - a)
    np.add.at(totals[:, 1], index, 1)
    return totals, names.tolist()


def paired_bootstrap(
    totals: NDArray[np.int64], *, resamples: int, seed: int, unit: int = 1, level: float = 0.95
) -> Paired:
    """The difference with its percentile interval, by resampling whole groups, both models' answers together.

    Args:
        totals: int64 [G, 2], difference of credits and questions of each group.
        unit: credits of one question answered right.

    The p-value is twice the share of draws on the farther side of zero or at it, the drawn sample itself counted as
    one; it is below 1 - level exactly where the interval leaves out zero. The draws are integers and the ends are order
    statistics. Where nothing differs it is 0, with an interval of length zero and p = 1. Where all groups differ alike
    resampling cannot vary: the ends and p are then those of
    :func:`mirasol.tasks.scoring.statistics.cluster_bootstrap`, for differences of -1 to 1; where B alone is right
    everywhere, p is that of the sign test with a group as the unit.
    """
    totals = totals[np.lexsort((totals[:, 1], totals[:, 0]))]  # no shuffling of the input changes it
    count = len(totals)
    difference, asked = (int(number) for number in totals.sum(0))
    if difference and (totals[:, 0] * asked == difference * totals[:, 1]).all():
        return _alike(difference / (asked * unit), count, level)
    generator = np.random.default_rng(seed)
    drawn: list[NDArray[np.float64]] = []
    rows = max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        picked = generator.integers(0, count, size=(min(rows, resamples - start), count))
        drawn.append(totals[picked, 0].sum(1) / (totals[picked, 1].sum(1) * unit))
    ordered = np.sort(np.concatenate(drawn))
    low = max(0, int((1 - level) / 2 * (resamples + 1)) - 1)  # as p counts, so that the two agree
    beyond = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    return Paired(
        difference / (asked * unit),
        (float(ordered[low]), float(ordered[resamples - 1 - low])),
        min(1.0, 2 * (beyond + 1) / (resamples + 1)),
    )


def _alike(difference: float, groups: int, level: float) -> Paired:
    """Of groups that all have the same difference, not 0."""
    end = ((1 - level) / 2) ** (1 / groups)
    interval = (1 + difference) * end - 1, 1 - (1 - difference) * end
    return Paired(difference, interval, min(1.0, 2 / (1 + abs(difference)) ** groups))


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test (McNemar 1947), by the binomial distribution in whole numbers.

    It takes questions as independent of each other, which those of one video are not: with several questions a
    video it finds differences where there are none. It stands beside the bootstrap because others report it.

    Args:
        only_a, only_b: questions that A alone, and B alone, answered right.
    """
    total, fewer = only_a + only_b, min(only_a, only_b)
    ways = term = 1
    for k in range(fewer):
        term = term * (total - k) // (k + 1)
        ways += term
    return min(1.0, 2 * ways / 2**total)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979): the chance of a single false claim stays below the level."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


def compare_runs(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    groups: Sequence[str],
    *,
    resamples: int,
    seed: int,
    unit: int = 1,
    level: float = 0.95,
) -> Runs:
    """Two recipes by several runs of each, the noise of seeds kept apart from that of questions.

    Args:
        a, b: credits int64 [R, Q] of the runs of A and of B, questions in the order of ``groups``.
        groups: the source video of each question.

    ``questions`` resamples groups with the mean credit of a side's runs: what other questions would give, were these
    runs all there are. ``seeds`` is the interval of Welch over the runs' scores: what other runs would give on these
    questions. ``both`` adds the two variances less what stands in both, the noise of a run on a question, with the
    degrees of freedom of Satterthwaite (1946); a few runs say little of their spread, and the interval says so.

    Raises:
        ValueError: sides without a run, or not one credit a question.
    """
    if a.ndim != 2 or b.ndim != 2 or not len(a) or not len(b) or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected credits [R, Q] of the same questions, got {a.shape} and {b.shape}")
    runs = math.lcm(len(a), len(b))
    means = [side.sum(0) * (runs // len(side)) for side in (a, b)]
    totals, names = paired_totals(means[0], means[1], groups)
    questions = paired_bootstrap(totals, resamples=resamples, seed=seed, unit=unit * runs, level=level)
    if min(len(a), len(b)) < 2:
        return Runs(questions, None, None)
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sides = [_spread(side / unit, index, len(names)) for side in (a, b)]
    of_seeds = [(between, count - 1) for between, _, count in sides]
    seeds = _welch(questions.difference, of_seeds, level)
    residual = totals[:, 0] / (unit * runs) - questions.difference * totals[:, 1]
    of_questions = float((residual**2).sum()) * len(names) / (len(names) - 1) / a.shape[1] ** 2 if names[1:] else 0.0
    # Each of the two variances holds the noise of a run on a question: it counts once.
    rest = max(0.0, of_questions - sum(within for _, within, _ in sides))
    both = _welch(questions.difference, [*of_seeds, (rest, max(1, len(names) - 1))], level)
    return Runs(questions, seeds, both)


def _spread(credits: NDArray[np.float64], index: NDArray[np.int64], groups: int) -> tuple[float, float, int]:
    """Of one side: the variance of its mean score over runs, the part of it that is a run's luck with these
    questions, and the runs."""
    runs, asked = credits.shape
    totals = np.stack([np.bincount(index, row, minlength=groups) for row in credits])  # [R, G]
    sizes = np.bincount(index, minlength=groups)
    scores = totals.sum(1) / asked
    between = float(scores.var(ddof=1)) / runs
    centred = totals - scores[:, None] * sizes
    centred -= centred.mean(0)
    within = float((centred**2).sum()) / (runs - 1) / runs / asked**2
    return between, within, runs


def _welch(difference: float, parts: Sequence[tuple[float, int]], level: float) -> Interval:
    """The interval of a sum of independent parts, each with the variance that it adds and its degrees of freedom."""
    variance = sum(value for value, _ in parts)
    if variance <= 0:
        return Interval(difference, 0.0, (difference, difference))
    freedom = variance**2 / sum(value**2 / df for value, df in parts)
    half = student_quantile(0.5 + level / 2, freedom) * math.sqrt(variance)
    return Interval(difference, math.sqrt(variance), (difference - half, difference + half))


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t distribution for ``share`` > 0.5 and ``freedom`` >= 1, to 12 digits, by bisection."""
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def _student_tail(t: float, freedom: float) -> float:
    """P(T > t) for t >= 0: half the incomplete beta function of freedom / (freedom + t^2)."""
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22, evaluated by Lentz)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - _incomplete_beta(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    value, up, down = tiny, tiny, 0.0
    for step in range(500):
        m = step // 2
        if step == 0:
            factor = 1.0
        elif step % 2:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        down = 1 / ((1 + factor * down) or tiny)
        up = (1 + factor / up) or tiny
        value *= up * down
        if abs(up * down - 1) < 1e-15:
            break
    return math.exp(scale) / a * value
