"""An answer with its score, and remarks that a reader of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirasol.runtime.backends import Array

FOREIGN = "foreign question"
NO_SOUND = "no sound"
NO_PICTURE = "no picture"
MEMORY = "memory"
PARTIAL = "partial"
CUT = "cut"


class Flag(NamedTuple):
    """A remark about an answer."""

    name: str  # one of the constants above: for tables and programs
    text: str  # one sentence for people


@dataclass(frozen=True)
class Answer:
    """An answer; ``str()`` gives its text."""

    text: str
    seconds: float  # of the stream when the question came
    complete: bool  # the model ended it; else it was cut at the longest allowed answer
    score: float  # probability of its tokens, end mark included: the product, in [0, 1]
    margin: float  # probability of the best token less that of the second best, where the two were closest
    seconds_used: float  # of the stream, in memory
    known: bool | None  # the question is like those of training; None: the bundle does not list them
    flags: tuple[Flag, ...] = ()

    def __str__(self) -> str:
        return self.text


def softmax(logits: Array) -> NDArray[np.float64]:
    """The probabilities [V] that logits [V] stand for."""
    values = np.asarray(logits, np.float64)
    shares = np.exp(values - values.max())
    return np.asarray(shares / shares.sum(), np.float64)


class Scorer:
    """Score and margin of an answer, token by token."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._log, self.margin = 0.0, 1.0

    @property
    def score(self) -> float:
        """Product of the tokens' probabilities."""
        return float(np.exp(self._log))

    def add(self, token: int, logits: Array) -> None:
        """Take in the next token with the logits [V] that chose it."""
        shares = softmax(logits)
        second, first = np.partition(shares, -2)[-2:] if len(shares) > 1 else (0.0, shares[0])
        self.ids.append(token)
        self._log += float(np.log(shares[token]))
        self.margin = min(self.margin, float(first - second))
