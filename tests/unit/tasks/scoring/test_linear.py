"""The linear model: what it can tell apart, and that the validation rows choose its penalty."""

from __future__ import annotations

import numpy as np
import pytest

from mirasol.tasks.scoring.linear import WITHOUT_VAL, Scale, fit, log_shares, train_linear


def two_clouds(rows: int, seed: int) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    return generator.normal(size=(rows, 5)) + 4 * labels[:, None] * np.eye(5)[1], ["no" if n else "yes" for n in labels]


def test_it_tells_two_clouds_apart() -> None:
    asked, right = two_clouds(50, seed=3)
    said, _ = train_linear(two_clouds(60, seed=1), two_clouds(30, seed=2), asked)
    assert np.mean([a == b for a, b in zip(said, right, strict=True)]) > 0.9


def test_noise_gets_the_strongest_penalty() -> None:
    generator = np.random.default_rng(5)
    names, asked = ["yes", "no"] * 20, np.zeros((1, 30))
    _, strength = train_linear(
        (generator.normal(size=(40, 30)), names), (generator.normal(size=(40, 30)), names), asked
    )
    assert strength == 1.0


def test_without_validation_rows_the_penalty_is_fixed() -> None:
    features, names = two_clouds(20, seed=1)
    assert train_linear((features, names), (features[:0], []), features)[1] == WITHOUT_VAL


def test_the_gradient_is_zero_where_it_ends() -> None:
    features, names = two_clouds(200, seed=4)
    labels = np.array([name == "no" for name in names], np.int64)
    weights = fit(features, labels, 2, 0.1)
    rows = np.hstack([features, np.ones((200, 1))])
    slope = rows.T @ (np.exp(log_shares(features, weights)) - np.eye(2)[labels]) / 200
    slope[:-1] += 0.1 * weights[:-1]
    assert np.abs(slope).max() < 1e-2


def test_a_missing_feature_is_the_mean() -> None:
    scale = Scale.of(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert scale(np.array([[np.nan, 5.0]])).tolist() == [[0.0, 0.0]]


def test_a_single_answer_is_every_answer() -> None:
    assert train_linear((np.zeros((2, 1)), ["a", "a"]), (np.zeros((0, 1)), []), np.zeros((3, 1)))[0] == ["a"] * 3


def test_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        train_linear((np.zeros((0, 1)), []), (np.zeros((0, 1)), []), np.zeros((0, 1)))
