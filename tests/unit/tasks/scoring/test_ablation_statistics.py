"""Intervals from a few seeds and many questions have their coverage, and verdicts follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from mirasol.tasks.scoring.statistics import (
    AGREES,
    NOTHING,
    OPPOSITE,
    Estimate,
    estimate,
    student_quantile,
    verdict,
)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (1000, 1.962)])
def test_student_quantiles_are_those_of_the_tables(freedom: float, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-3)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05], ids=lambda s: f"seeds differ by {s}")
def test_intervals_of_three_seeds_hold_the_truth_nineteen_times_in_twenty(spread: float) -> None:
    """Differences of two models: a spread over seeds, one over clips, and noise in each answer."""
    draws = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 8)
    held = 0
    rounds = 1000
    for _ in range(rounds):
        of_seeds = draws.normal(0, spread, (3, 1))
        of_clips = draws.normal(0, 0.2, 100)[groups]
        noise = draws.normal(0, 0.5, (3, len(groups)))
        found = estimate(0.03 + of_seeds + of_clips + noise, groups)
        held += found.low <= 0.03 <= found.high
    # never too narrow; with no spread over seeds the noise counts twice, which makes it a little wide
    assert 0.935 <= held / rounds <= 0.985


def test_a_bootstrap_over_three_seeds_would_not() -> None:
    """Why there is none: with a spread over seeds it holds the truth far too rarely."""
    draws = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        by_seed = 0.03 + draws.normal(0, 0.05, 3)
        means = np.sort(by_seed[draws.integers(0, 3, (1000, 3))].mean(axis=1))
        held += means[25] <= 0.03 <= means[974]
    assert held / 300 < 0.85


def test_equal_models_differ_by_nothing() -> None:
    assert estimate(np.zeros((3, 8)), np.arange(8)) == Estimate(0.0, 0.0, 0.0, (0.0, 0.0, 0.0))


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 and 8"):
        estimate(np.zeros((1, 8)), np.arange(8))


@pytest.mark.parametrize(
    ("low", "high", "expected", "said"),
    [
        (0.01, 0.03, 1, AGREES),
        (-0.03, -0.01, -1, AGREES),
        (-0.03, -0.01, 1, OPPOSITE),
        (-0.01, 0.03, 1, NOTHING),
        (-0.01, 0.03, 0, AGREES),
        (0.01, 0.03, 0, OPPOSITE),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(low: float, high: float, expected: int, said: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, ()), expected) == said
