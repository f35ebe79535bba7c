"""Open-ended answers by exact match (P 4): what the sets of questions share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.base.protocol import Asked, Credit, Material, mean
from mirasol.tasks.scoring.normalise import exact_match, exact_match_raw, normalise
from mirasol.tasks.scoring.predictions import Prediction

TOP = 1000  # answers of the vocabulary that classifiers on these sets commonly choose from


def judge(material: Material) -> Credit:
    """1 where the normalised answer equals a normalised reference, else 0; no answer is wrong."""

    def credit(question: Example, prediction: Prediction) -> float:
        return float(exact_match(prediction.predicted, question.answers))

    return credit


def family(question: Example) -> tuple[str, ...]:
    """The question's family, if it has one."""
    return (question.family,) if question.family else ()


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """Exact match character by character, of the closed set, and what the training answers allow.

    ``closed``: the best of ``scores`` in place of the answer; ``None`` unless every answered line has scores.
    ``vocabulary``: for the ``TOP`` most frequent training answers and for all, how many they are (``answers``), the
    share of distinct references among them (``coverage``) and the share of questions with a reference among them
    (``ceiling``): the most that any model that chooses from this list can reach. ``None`` without a training split.
    """
    return {
        "exact_match_raw": mean([exact_match_raw(r.prediction.predicted, r.question.answers) for r in rows]),
        "closed": closed(rows),
        "vocabulary": _vocabulary(rows, material) if material.train else None,
    }


def closed(rows: Sequence[Asked]) -> float | None:
    """Exact match of the best scored answer; ``None`` unless every line with an answer has scores."""
    if not any(r.prediction.scores for r in rows) or any(
        r.prediction.predicted is not None and not r.prediction.scores for r in rows
    ):
        return None
    return mean([exact_match(next(iter(r.prediction.ranked()), None), r.question.answers) for r in rows])


def _vocabulary(rows: Sequence[Asked], material: Material) -> dict[str, Mapping[str, Any]]:
    learnt = Counter(normalise(e.answers[0]) for e in material.train)
    by_count = sorted(learnt, key=lambda answer: (-learnt[answer], answer))
    references = [{normalise(answer) for answer in r.question.answers} for r in rows]
    distinct = set().union(*references)
    found: dict[str, Mapping[str, Any]] = {}
    for name, answers in ((f"top_{TOP}", set(by_count[:TOP])), ("all", set(by_count))):
        found[name] = {
            "answers": len(answers),
            "coverage": mean([answer in answers for answer in distinct]),
            "ceiling": mean([not answers.isdisjoint(reference) for reference in references]),
        }
    return found
