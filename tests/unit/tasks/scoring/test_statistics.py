from __future__ import annotations

import numpy as np
import pytest

from mirasol.tasks.scoring.statistics import cluster_bootstrap, group_totals

LEVEL = 0.95


def _clustered(seed: int, share: float, groups: int, asked: int) -> tuple[list[bool], list[str]]:
    """Outcomes whose chance of being right varies from group to group (beta, intra-group correlation 0.3)."""
    generator = np.random.default_rng(seed)
    chance = generator.beta(share * 7 / 3, (1 - share) * 7 / 3, groups)
    correct = generator.random((groups, asked)) < chance[:, None]
    return correct.ravel().tolist(), np.repeat([f"g{i}" for i in range(groups)], asked).tolist()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    share, runs, covered, naive = 0.7, 300, 0, 0
    for seed in range(runs):
        correct, groups = _clustered(seed, share, groups=60, asked=10)
        low, high = cluster_bootstrap(correct, groups, resamples=500, seed=1, level=LEVEL)
        covered += low <= share <= high
        mean = np.mean(correct)
        half = 1.96 * np.sqrt(mean * (1 - mean) / len(correct))
        naive += mean - half <= share <= mean + half
    assert 0.92 <= covered / runs <= 0.98
    assert naive / runs < 0.85  # questions of one video are not independent: the reason for groups


def test_equal_seeds_give_equal_intervals() -> None:
    correct, groups = _clustered(0, 0.7, 20, 5)
    first = cluster_bootstrap(correct, groups, resamples=300, seed=3)
    assert cluster_bootstrap(correct, groups, resamples=300, seed=3) == first


def test_the_order_of_questions_does_not_matter() -> None:
    correct, groups = _clustered(0, 0.7, 20, 5)
    order = np.random.default_rng(1).permutation(len(correct))
    shuffled = [correct[i] for i in order], [groups[i] for i in order]
    assert cluster_bootstrap(correct, groups, resamples=300, seed=3) == cluster_bootstrap(
        *shuffled, resamples=300, seed=3
    )


def test_known_interval_stays() -> None:
    """A pinned value: scores of fixed predictions are the same on every machine."""
    correct = [i % 3 != 0 for i in range(60)]
    groups = [f"g{i // 4}" for i in range(60)]
    assert cluster_bootstrap(correct, groups, resamples=1000, seed=7) == pytest.approx(KNOWN, abs=0)


KNOWN = (0.6, 0.7166666666666667)


def test_all_right_has_no_interval_of_length_zero() -> None:
    low, high = cluster_bootstrap([True] * 40, [f"g{i // 2}" for i in range(40)], resamples=200, seed=0)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)


def test_all_wrong_mirrors_all_right() -> None:
    low, high = cluster_bootstrap([False] * 40, [f"g{i // 2}" for i in range(40)], resamples=200, seed=0)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_groups_that_are_all_half_right_have_no_interval_of_length_zero() -> None:
    """Resampling says nothing where all groups are alike; no mean below s * t allows all G to have s (Markov)."""
    end = 0.025 ** (1 / 3)
    for correct, share in (([True, False] * 3, 0.5), ([True, True, False, True] * 3, 0.75)):
        groups = [f"g{i * 3 // len(correct)}" for i in range(len(correct))]
        low, high = cluster_bootstrap(correct, groups, resamples=200, seed=0)
        assert (low, high) == (pytest.approx(share * end), pytest.approx(1 - (1 - share) * end))


def test_one_group_says_next_to_nothing() -> None:
    assert cluster_bootstrap([True, False], ["a", "a"], resamples=200, seed=0) == pytest.approx((0.0125, 0.9875))


def test_the_ends_of_a_finer_credit_are_in_its_unit() -> None:
    whole = cluster_bootstrap([1, 0, 1, 1], ["a", "a", "b", "b"], resamples=200, seed=0)
    fine = cluster_bootstrap([1000, 0, 1000, 1000], ["a", "a", "b", "b"], resamples=200, seed=0, unit=1000)
    assert fine == whole
    right = cluster_bootstrap([1000, 1000], ["a", "b"], resamples=200, seed=0, unit=1000)
    assert right == cluster_bootstrap([1, 1], ["a", "b"], resamples=200, seed=0)


def test_groups_are_counted_whole() -> None:
    assert group_totals([True, False, True, True], ["a", "b", "a", "b"]).tolist() == [[1, 2], [2, 2]]


def test_no_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cluster_bootstrap([], [], resamples=100, seed=0)


def test_missing_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="2 outcomes but 1 groups"):
        cluster_bootstrap([True, False], ["a"], resamples=100, seed=0)
