"""A protocol: how the answers to one benchmark are scored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.scoring.predictions import Prediction

UNIT = 10**6  # parts of a credit in the interval of a score with fractions
DIGITS = 6  # of the figures in reports


@dataclass(frozen=True)
class Asked:
    """A question with its prediction and its credit."""

    question: Example
    prediction: Prediction
    credit: float  # 0 to 1; 1 or 0 where answers are right or wrong


@dataclass(frozen=True)
class Material:
    """Everything that a protocol may need except questions and predictions."""

    folders: tuple[Path, ...] = ()  # that may have files of the set: annotations or data folder
    wordnet: Path = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts it
    train: tuple[Example, ...] = ()  # the training split, if available
    resamples: int = 2000
    seed: int = 7


Credit = Callable[[Example, Prediction], float]


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored."""

    name: str  # of the benchmark, and of its adapter if it has one
    about: str  # one sentence
    source: str  # of the definition of the score
    metric: str  # name of the headline figure
    split: str  # published split that figures are published for
    judge: Callable[[Material], Credit]  # called once a file: it may read other files
    parts: Callable[[Example], Iterable[str]]  # names of the subsets that a question counts in
    more: Callable[[Sequence[Asked], Material], Mapping[str, Any]]  # further figures
    published: Mapping[str, int] = field(default_factory=dict)  # published split -> questions
    classes: int | None = None  # number of classes, if known
    closed: str = ""  # the answers that `mirasol evaluate` scores exhaustively: "classes", "options" or none


def cell(rows: Sequence[Asked], metric: str, material: Material) -> dict[str, Any]:
    """The mean credit of ``rows`` with its interval over source videos."""
    from mirasol.tasks.scoring.statistics import cluster_bootstrap  # numpy: not for `mirasol --help`

    credits = [row.credit for row in rows]
    groups = [row.question.group for row in rows]
    parts = [round(credit * UNIT) for credit in credits]
    interval = cluster_bootstrap(parts, groups, resamples=material.resamples, seed=material.seed, unit=UNIT)
    return {
        metric: mean(credits),
        "ci95": [round(end, DIGITS) for end in interval],
        "n": len(rows),
        "groups": len(set(groups)),
    }


def mean(values: Sequence[float]) -> float:
    """The mean, the same in any order."""
    return round(math.fsum(values) / len(values), DIGITS)


def hash_of(names: Iterable[str]) -> str:
    """SHA-256 of the sorted names, one a line: scores with equal hashes are over the same questions."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
