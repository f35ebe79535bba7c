"""Multinomial logistic regression with an L2 penalty, in numpy: the plain model that every trained one is held against.

Deterministic: no random start, no random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of the penalty on the mean loss, the strongest first
WITHOUT_VAL = 0.1  # the strength where no validation row can choose one
STEPS = 300
MOVED = 1e-4  # weights that move less than this in a step have arrived
CLIPPED = 5.0  # standard deviations: one odd clip moves nothing further


@dataclass(frozen=True)
class Scale:
    """Standardises features [N, F] by the training rows; missing ones (NaN) become 0, the mean."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, features: Floats) -> Scale:
        """From training rows; a feature without spread, or missing everywhere, becomes 0."""
        known = np.isfinite(features)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, features, 0.0).sum(0) / count
        deviation = np.sqrt((np.where(known, features - mean, 0.0) ** 2).sum(0) / count)
        return cls(mean, np.where(deviation > 1e-9, deviation, np.inf))

    def __call__(self, features: Floats) -> Floats:
        scaled = np.where(np.isfinite(features), (features - self.mean) / self.deviation, 0.0)
        return np.clip(scaled, -CLIPPED, CLIPPED)


def fit(features: Floats, labels: Numbers, classes: int, strength: float, start: Floats | None = None) -> Floats:
    """Weights [F + 1, C], the last row the biases, that minimise the mean log-loss and ``strength`` |w|² / 2.

    Nesterov's method with the step of the loss's Lipschitz bound.

    Args:
        features: [N, F], standardised.
        labels: [N], from 0 to ``classes`` - 1.
        start: weights to begin with; zeros if ``None``.
    """
    rows = np.hstack([features, np.ones((len(features), 1))])
    wanted = np.eye(classes)[labels]
    penalty = np.full((rows.shape[1], 1), strength)
    penalty[-1] = 1e-6  # biases are free
    step = 1.0 / (0.5 * float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]) + strength)
    weights = np.zeros((rows.shape[1], classes)) if start is None else start
    ahead, momentum = weights, 1.0
    for _ in range(STEPS):
        gradient = rows.T @ (_softmax(rows @ ahead) - wanted) / len(rows) + penalty * ahead
        moved = ahead - step * gradient
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + (momentum - 1) / grown * (moved - weights)
        arrived = float(np.abs(moved - weights).max()) < MOVED
        weights, momentum = moved, grown
        if arrived:
            break
    return weights


def log_shares(features: Floats, weights: Floats) -> Floats:
    """Log-probability of each class [N, C]."""
    logits = features @ weights[:-1] + weights[-1]
    logits -= logits.max(1, keepdims=True)
    found: Floats = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return found


def train_linear(
    train: tuple[Floats, Sequence[str]], val: tuple[Floats, Sequence[str]], asked: Floats
) -> tuple[list[str], float]:
    """The class of each row of ``asked`` [N, F], and the penalty's strength.

    Args:
        train: features [N, F], not yet standardised, and the class of each row.
        val: the same, from which the strength is chosen: the one with the lowest log-loss, the stronger if equal.

    Raises:
        ValueError: no training row.
    """
    features, names = train
    if not len(names):
        raise ValueError("a linear model needs at least 1 training row, got 0")
    classes = sorted(set(names))
    if len(classes) == 1:
        return classes * len(asked), WITHOUT_VAL
    number = {name: index for index, name in enumerate(classes)}
    scale = Scale.of(features)
    rows, labels = scale(features), np.array([number[name] for name in names])
    known = [index for index, name in enumerate(val[1]) if name in number]
    best: tuple[float, float, Floats] | None = None
    weights: Floats | None = None
    held = scale(val[0][known]) if known else None
    right = np.array([number[val[1][index]] for index in known])
    for strength in STRENGTHS if held is not None else (WITHOUT_VAL,):
        weights = fit(rows, labels, len(classes), strength, weights)
        loss = 0.0 if held is None else -float(log_shares(held, weights)[np.arange(len(right)), right].mean())
        if best is None or loss < best[0] - 1e-9:
            best = loss, strength, weights
    assert best is not None
    chosen = log_shares(scale(asked), best[2]).argmax(1)
    return [classes[index] for index in chosen], best[1]


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    found: Floats = shares / shares.sum(1, keepdims=True)
    return found
