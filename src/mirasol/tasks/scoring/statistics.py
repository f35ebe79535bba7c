"""Intervals and tests for scores: over source videos, between two models, over seeds.

Questions about one source video are not independent of each other, so every interval here resamples or sums whole
groups. Credits are whole numbers (1 or 0 for right or wrong, or a finer unit), so that sums are exact and fixed
predictions give the same digits in any order and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Totals = NDArray[np.int64]  # [G, 2]: credits and questions of each group

AGREES, NOTHING, OPPOSITE = "same direction", "no difference seen", "opposite"
HEADLINE_CLIPS = 30  # below, a score is no headline
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


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; shares, not percent."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]


def group_totals(correct: Sequence[int], groups: Sequence[str]) -> Totals:
    """Right answers and questions of each group, int64 [G, 2], in an order independent of that of the input.

    Raises:
        ValueError: the two differ in length.
    """
    if len(correct) != len(groups):
        raise ValueError(f"{len(correct)} outcomes but {len(groups)} groups")
    return _sorted(_totals(np.asarray(correct, np.int64), groups)[0])


def paired_totals(a: NDArray[np.int64], b: NDArray[np.int64], groups: Sequence[str]) -> tuple[Totals, list[str]]:
    """The credits of B less those of A, and the questions, of each group: int64 [G, 2] and names, ordered by name.

    Raises:
        ValueError: the three differ in length, or are empty.
    """
    if not len(a) == len(b) == len(groups) or not len(groups):
        raise ValueError(f"expected as many credits as groups and at least 1, got {len(a)}, {len(b)}, {len(groups)}")
    return _totals(b - a, groups)


def cluster_bootstrap(
    correct: Sequence[int], groups: Sequence[str], *, resamples: int, seed: int, level: float = 0.95, unit: int = 1
) -> tuple[float, float]:
    """Percentile interval of the share of right answers, by resampling whole groups.

    The draws are integers and the ends are order statistics, so the result is the same to the last digit on every
    machine. Resampling cannot vary where all groups have the same share s. The ends are then the means that would
    give so many groups s or more, and s or less, with a chance of at most (1 - level) / 2, for any distribution
    (Markov's inequality): where all groups are right, or all wrong, the exact binomial ends with a group as the unit.

    Args:
        correct: 1 or 0 for each question, or parts of ``unit``.
        unit: of a question answered right.

    Raises:
        ValueError: no outcome, or not as many groups as outcomes.
    """
    totals = group_totals(correct, groups)
    if not len(totals):
        raise ValueError("an interval needs at least 1 outcome, got 0")
    tail = (1 - level) / 2
    right, asked = totals.sum(0)
    if (totals[:, 0] * asked == right * totals[:, 1]).all():
        share, end = int(right) / (int(asked) * unit), tail ** (1 / len(totals))
        return share * end, 1 - (1 - share) * end
    ordered, low = _resampled(totals, resamples, seed, unit), int(tail * resamples)
    return float(ordered[low]), float(ordered[resamples - 1 - low])


def paired_bootstrap(totals: Totals, *, resamples: int, seed: int, unit: int = 1, level: float = 0.95) -> Paired:
    """The difference with its percentile interval, by resampling whole groups, both models' answers together.

    Args:
        totals: int64 [G, 2], difference of credits and questions of each group.
        unit: credits of one question answered right.

    The p-value is twice the share of draws on the farther side of zero or at it, the drawn sample itself counted as
    one; it is below 1 - level exactly where the interval leaves out zero. Where nothing differs the difference is 0,
    with an interval of length zero and p = 1. Where all groups differ alike resampling cannot vary: the ends and p are
    then those of :func:`cluster_bootstrap`, for differences of -1 to 1; where B alone is right everywhere, p is that
    of the sign test with a group as the unit.
    """
    totals = _sorted(totals)
    difference, asked = (int(number) for number in totals.sum(0))
    if difference and (totals[:, 0] * asked == difference * totals[:, 1]).all():
        return _alike(difference / (asked * unit), len(totals), level)
    ordered = _resampled(totals, resamples, seed, unit)
    low = max(0, int((1 - level) / 2 * (resamples + 1)) - 1)  # counted like p, so that the two agree
    beyond = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    return Paired(
        difference / (asked * unit),
        (float(ordered[low]), float(ordered[resamples - 1 - low])),
        min(1.0, 2 * (beyond + 1) / (resamples + 1)),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test (McNemar 1947), by the binomial distribution in whole numbers.

    It takes questions as independent of each other, which those of one video are not: with several questions a video
    it finds false differences. Reports give it next to the bootstrap because other papers do.

    Args:
        only_a, only_b: questions that A alone, and B alone, answered right.
    """
    total, fewer = only_a + only_b, min(only_a, only_b)
    ways = term = 1
    for k in range(fewer):
        term = term * (total - k) // (k + 1)
        ways += term
    return float(min(1.0, 2 * ways / 2**total))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): the chance of a single false claim stays below the level."""
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
    """Two recipes by several runs of each, with the noise of seeds apart from that of questions.

    Args:
        a, b: credits int64 [R, Q] of the runs of A and of B, questions in the order of ``groups``.
        groups: the source video of each question.

    ``questions`` resamples groups with the mean credit of a side's runs: other questions, these runs. ``seeds`` is
    the interval of Welch over the runs' scores: other runs, these questions. ``both`` adds the two variances less
    their common part, the noise of a run on a question, with the degrees of freedom of Satterthwaite (1946); a few
    runs tell little about their spread, and the interval shows it.

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
    # Each of the two variances contains the noise of a run on a question: it counts once.
    rest = max(0.0, of_questions - sum(within for _, within, _ in sides))
    both = _welch(questions.difference, [*of_seeds, (rest, max(1, len(names) - 1))], level)
    return Runs(questions, seeds, both)


def estimate(values: Floats, groups: NDArray[np.int64], *, level: float = 0.95) -> Estimate:
    """The mean of ``values`` [seeds, questions], with an interval for other seeds and other clips.

    Adds two sources of chance: the seeds, and the questions, which cluster by clip. With three seeds a bootstrap over
    seeds is far too narrow; Student's t with the degrees of freedom of Satterthwaite is not. For a paired difference
    give the differences: the same questions, the same seeds.

    Args:
        groups: [questions], the clip of each question.

    Raises:
        ValueError: fewer than two seeds or two clips: their spread cannot be known.
    """
    seeds, questions = values.shape
    count = len(np.unique(groups))
    if seeds < 2 or count < 2:
        raise ValueError(f"an interval needs at least 2 seeds and 2 clips: got {seeds} and {count}")
    by_seed = values.mean(axis=1)
    mean = float(by_seed.mean())
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    rest = np.zeros(int(groups.max()) + 1)
    np.add.at(rest, groups, values.mean(axis=0) - mean)
    of_clips = float((rest**2).sum()) * count / (count - 1) / questions**2
    low, high = _welch(mean, [(of_seeds, seeds - 1), (of_clips, count - 1)], level).interval
    return Estimate(mean, low, high, tuple(by_seed.tolist()))


def verdict(found: Estimate, expected: int) -> str:
    """Whether a difference agrees with the paper's direction: 1 better, -1 worse, 0 no different.

    A difference counts where its interval excludes zero. Where the paper sees none, seeing none agrees: weak evidence,
    since an interval around zero does not prove equality.
    """
    sign = 1 if found.low > 0 else -1 if found.high < 0 else 0
    if expected == 0:
        return AGREES if sign == 0 else OPPOSITE
    return NOTHING if sign == 0 else AGREES if sign == expected else OPPOSITE


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t distribution for ``share`` > 0.5 and ``freedom`` >= 1, to 12 digits, by bisection.

    Hand-written, for the library with this function is larger than all other dependencies of the scores.
    """
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def _totals(credits: NDArray[np.int64], groups: Sequence[str]) -> tuple[Totals, list[str]]:
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    totals = np.zeros((len(names), 2), np.int64)
    np.add.at(totals[:, 0], index, credits)
    np.add.at(totals[:, 1], index, 1)
    return totals, names.tolist()


def _sorted(totals: Totals) -> Totals:
    return totals[np.lexsort((totals[:, 1], totals[:, 0]))]


def _resampled(totals: Totals, resamples: int, seed: int, unit: int) -> Floats:
    """Shares of credits in samples of whole groups, in order."""
    count, rows = len(totals), max(1, _BLOCK // len(totals))
    generator = np.random.default_rng(seed)
    shares: list[Floats] = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, count, size=(min(rows, resamples - start), count))
        shares.append(totals[drawn, 0].sum(1) / (totals[drawn, 1].sum(1) * unit))
    return np.sort(np.concatenate(shares))


def _alike(difference: float, groups: int, level: float) -> Paired:
    """Where all groups have the same difference, not 0."""
    end = ((1 - level) / 2) ** (1 / groups)
    interval = (1 + difference) * end - 1, 1 - (1 - difference) * end
    return Paired(difference, interval, min(1.0, 2 / (1 + abs(difference)) ** groups))


def _spread(credits: Floats, index: NDArray[np.int64], groups: int) -> tuple[float, float, int]:
    """For one side: the variance of its mean score over runs, the part of it from the noise of a run on these
    questions, and the number of runs."""
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
