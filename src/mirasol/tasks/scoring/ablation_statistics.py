"""What a few seeds and many questions say: a mean or a difference of means with its interval, and a verdict.

Two sources of chance are kept apart and added: the seeds (three or so), and the questions, which cluster by clip. With
three seeds a bootstrap over seeds is far too narrow; Student's t with the degrees of freedom of Satterthwaite is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AGREES, NOTHING, OPPOSITE = "same direction", "no difference seen", "opposite"


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; shares, not percent."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]


def estimate(values: Floats, groups: NDArray[np.int64], *, level: float = 0.95) -> Estimate:
    """The mean of ``values`` [seeds, questions], with an interval for other seeds and other clips.

    For a paired difference give the differences: the same questions, the same seeds.

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
    total = of_seeds + of_clips
    if total == 0:
        return Estimate(mean, mean, mean, tuple(by_seed.tolist()))
    freedom = total**2 / (of_seeds**2 / (seeds - 1) + of_clips**2 / (count - 1))
    reach = student(freedom, level) * float(np.sqrt(total))
    return Estimate(mean, mean - reach, mean + reach, tuple(by_seed.tolist()))


def student(freedom: float, level: float) -> float:
    """The t within which Student's distribution holds ``level`` of its mass; ``freedom`` at least 1."""
    # |T| < sqrt(freedom) tan(a) has the probability of cos^(freedom - 1) between 0 and a, as a share of the whole.
    angle = np.linspace(0.0, np.pi / 2, 20_001)[:-1]
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    mass /= mass[-1] + (density[-1] / 2)
    return float(np.sqrt(freedom) * np.tan(np.interp(level, mass, angle)))


def verdict(found: Estimate, expected: int) -> str:
    """Whether a difference agrees with the paper's direction: 1 better, -1 worse, 0 no different.

    A difference counts where its interval excludes zero. Where the paper sees none, seeing none agrees, which proves
    no more than that none was seen.
    """
    sign = 1 if found.low > 0 else -1 if found.high < 0 else 0
    if expected == 0:
        return AGREES if sign == 0 else OPPOSITE
    return NOTHING if sign == 0 else AGREES if sign == expected else OPPOSITE
