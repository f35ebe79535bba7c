"""What a protocol is: how the rows of one benchmark are scored. How they are read is the adapter's business."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.scoring.predictions import Prediction
from mirasol.tasks.scoring.statistics import cluster_bootstrap

UNIT = 10**6  # parts of a credit in the interval of a score that is no count
DIGITS = 6  # of the figures in reports


@dataclass(frozen=True)
class Asked:
    """A question with its prediction, and what the protocol gives for it."""

    question: Example
    prediction: Prediction
    credit: float  # 0 to 1; 1 or 0 where answers are right or wrong


@dataclass(frozen=True)
class Material:
    """What a protocol may need beside questions and predictions."""

    folders: tuple[Path, ...] = ()  # where files of the set may lie: annotations or data folder
    wordnet: Path = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts it
    train: tuple[Example, ...] = ()  # the training split, where it is there
    resamples: int = 2000
    seed: int = 7


Credit = Callable[[Example, Prediction], float]


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored."""

    name: str  # of the benchmark, and of its adapter if it has one
    about: str  # one sentence
    source: str  # who defined the score
    metric: str  # name of the headline figure
    split: str  # published split that figures are published for
    judge: Callable[[Material], Credit]  # made once a file: it may have to read something
    parts: Callable[[Example], Iterable[str]]  # names of the subsets that a question counts in
    more: Callable[[Sequence[Asked], Material], Mapping[str, Any]]  # what stands beside the headline
    published: Mapping[str, int] = field(default_factory=dict)  # published split -> questions
    classes: int | None = None  # of a set of classes whose number is known
    closed: str = ""  # what `mirasol evaluate` scores exhaustively: "classes", "options" or nothing


def cell(rows: Sequence[Asked], metric: str, material: Material) -> dict[str, Any]:
    """The mean credit of ``rows`` with its interval over source videos."""
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
    """SHA-256 of the sorted names, a name a line: two scores with equal hashes asked the same."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
