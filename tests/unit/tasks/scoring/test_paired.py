"""Comparisons of two models: the intervals hold the truth as often as they say, the tests are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mirasol.tasks.scoring.paired import (
    compare_runs,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_totals,
    student_quantile,
)
from mirasol.tasks.scoring.statistics import cluster_bootstrap

Credits = NDArray[np.int64]


def simulate(
    seed: int, groups: int, asked: int, scores: tuple[float, float], runs: int = 1, spread: float = 0.0
) -> tuple[list[Credits], list[str]]:
    """Credits [R, Q] of two recipes: videos and questions differ in how hard they are, alike for both; runs by luck."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(0, 0.1, (groups, 1)) + generator.normal(0, 0.05, (groups, asked))
    sides = []
    for score in scores:
        own = generator.normal(0, 0.05, (groups, asked))
        run = generator.normal(0, spread, (runs, 1, 1)) + generator.normal(0, 2 * spread, (runs, groups, 1))
        chance = np.clip(score + hard + own + run, 0, 1)
        sides.append((generator.random(chance.shape) < chance).astype(np.int64).reshape(runs, -1))
    return sides, [f"g{i // asked:04d}" for i in range(groups * asked)]


def coverage(simulations: int, groups: int, asked: int, scores: tuple[float, float]) -> tuple[float, float]:
    """How often the paired and the single interval hold the truth."""
    paired = single = 0
    truth = scores[1] - scores[0]
    for seed in range(simulations):
        (a, b), names = simulate(seed, groups, asked, scores)
        totals, _ = paired_totals(a[0], b[0], names)
        low, high = paired_bootstrap(totals, resamples=400, seed=1).interval
        paired += low <= truth <= high
        low, high = cluster_bootstrap(a[0].astype(bool), names, resamples=400, seed=1)
        single += low <= scores[0] <= high
    return paired / simulations, single / simulations


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    paired, single = coverage(1500, groups=120, asked=5, scores=(0.55, 0.58))
    assert 0.93 <= paired <= 0.97
    assert 0.93 <= single <= 0.97


def seed_coverage(simulations: int, groups: int, asked: int, runs: int, spread: float) -> tuple[float, float]:
    """How often the interval over seeds and questions holds the truth, and the one over questions alone."""
    both = questions = 0
    for seed in range(simulations):
        (a, b), names = simulate(seed, groups, asked, (0.5, 0.55), runs, spread)
        found = compare_runs(a, b, names, resamples=200, seed=1)
        assert found.both is not None
        both += found.both.interval[0] <= 0.05 <= found.both.interval[1]
        questions += found.questions.interval[0] <= 0.05 <= found.questions.interval[1]
    return both / simulations, questions / simulations


def test_intervals_over_seeds_and_questions_hold_the_truth_as_often_as_they_say() -> None:
    both, questions = seed_coverage(1500, groups=150, asked=4, runs=5, spread=0.02)
    assert 0.93 <= both <= 0.97
    assert questions < 0.9  # the noise of questions alone is not what a new training would show


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "asked"), [(60, 10), (300, 2), (800, 10)])
def test_coverage_in_more_shapes(groups: int, asked: int) -> None:
    assert all(0.93 <= share <= 0.97 for share in coverage(4000, groups, asked, (0.45, 0.5)))


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "spread"), [(3, 0.02), (5, 0.01), (5, 0.05), (8, 0.02)])
def test_coverage_over_seeds_in_more_shapes(runs: int, spread: float) -> None:
    assert 0.93 <= seed_coverage(4000, 150, 4, runs, spread)[0] <= 0.97


def test_the_order_of_questions_does_not_matter() -> None:
    (a, b), names = simulate(3, 30, 4, (0.4, 0.6), runs=3, spread=0.02)
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = compare_runs(a[:, order], b[:, order], [names[i] for i in order], resamples=300, seed=2)
    assert shuffled == compare_runs(a, b, names, resamples=300, seed=2)


def test_equal_models_differ_in_nothing() -> None:
    (a, _), names = simulate(0, 20, 3, (0.5, 0.5))
    found = paired_bootstrap(paired_totals(a[0], a[0], names)[0], resamples=200, seed=1)
    assert (found.difference, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_a_difference_in_every_question_is_certain() -> None:
    names = [f"g{i}" for i in range(40)]
    totals, _ = paired_totals(np.zeros(40, np.int64), np.ones(40, np.int64), names)
    found = paired_bootstrap(totals, resamples=999, seed=1)
    assert (found.difference, found.interval[1], found.p) == (1.0, 1.0, 2 / 2**40)


def test_p_is_below_5_percent_where_the_interval_leaves_out_zero() -> None:
    near = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        totals = np.stack([(generator.normal(0.4, 1, 20) * 100).astype(np.int64), np.full(20, 100)], 1)
        found = paired_bootstrap(totals, resamples=200, seed=seed)
        assert (found.interval[0] > 0 or found.interval[1] < 0) == (found.p < 0.05)
        near += 0.03 < found.p < 0.07
    assert near >= 10


def test_videos_that_all_differ_alike_are_no_certainty() -> None:
    """Resampling cannot vary. One video proves nothing, whatever it says; with six of six the sign test is at 3 %."""
    for groups, difference in ((1, 5), (1, 10), (2, 10), (5, 10), (6, 10), (6, -10), (30, 2)):
        found = paired_bootstrap(np.array([[difference, 10]] * groups), resamples=1000, seed=1)
        assert found.interval[0] < found.difference < found.interval[1] or abs(difference) == 10
        assert found.interval[1] - found.interval[0] > 0
        without_zero = found.interval[0] > 0 or found.interval[1] < 0
        assert without_zero == (found.p < 0.05) == ((abs(difference) == 10 and groups >= 6) or groups == 30)
    found = paired_bootstrap(np.array([[10, 10]] * 6), resamples=1000, seed=1)
    assert (found.interval, found.p) == ((pytest.approx(2 * 0.025 ** (1 / 6) - 1), 1.0), 2 / 2**6)


def test_known_comparison_stays() -> None:
    """Pinned: fixed predictions give the same digits on every machine."""
    a = np.array([i % 3 != 0 for i in range(60)], np.int64)
    b = np.array([i % 5 != 0 for i in range(60)], np.int64)
    found = paired_bootstrap(paired_totals(a, b, [f"g{i // 4}" for i in range(60)])[0], resamples=1000, seed=7)
    assert (found.difference, found.interval, found.p) == KNOWN


KNOWN = (0.13333333333333333, (0.06666666666666667, 0.2), 0.001998001998001998)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(0, 0, 1.0), (0, 7, 2 / 2**7), (3, 10, 2 * (1 + 13 + 78 + 286) / 2**13), (5, 5, 1.0)]
)
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a) == p


def test_mcnemar_of_a_large_set_neither_overflows_nor_vanishes() -> None:
    # The normal approximation with its correction: z = 399 / sqrt(40400).
    assert mcnemar(20_000, 20_400) == pytest.approx(math.erfc(399 / math.sqrt(2 * 40_400)), rel=1e-3)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706204736), (1.7, 5.118838988), (4, 2.776445105), (100, 1.983971519)]
)
def test_quantiles_of_student(freedom: float, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=1e-8)


def test_runs_without_spread_leave_the_questions_alone() -> None:
    (a, b), names = simulate(0, 40, 3, (0.5, 0.6))
    found = compare_runs(np.repeat(a, 3, 0), np.repeat(b, 3, 0), names, resamples=200, seed=1)
    assert found.seeds is not None and found.seeds.error == pytest.approx(0, abs=1e-12)
    assert found.both is not None and found.both.interval[0] < found.questions.difference < found.both.interval[1]


def test_one_run_says_nothing_of_seeds() -> None:
    (a, b), names = simulate(0, 40, 3, (0.5, 0.6))
    found = compare_runs(a, b, names, resamples=200, seed=1)
    assert (found.seeds, found.both) == (None, None)
    assert found.questions == paired_bootstrap(paired_totals(a[0], b[0], names)[0], resamples=200, seed=1)


def test_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same questions"):
        compare_runs(np.zeros((1, 3), np.int64), np.zeros((1, 4), np.int64), ["a"] * 3, resamples=100, seed=1)
