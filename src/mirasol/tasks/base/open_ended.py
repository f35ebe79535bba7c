"""Open-ended answers by exact match (P 4): free text, and names of classes as generated text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.base.protocol import Asked, Credit, Material, Protocol, mean
from mirasol.tasks.scoring.normalise import exact_match, exact_match_raw, normalise
from mirasol.tasks.scoring.predictions import Prediction

TOP = 1000  # answers of the vocabulary that classifiers on these sets commonly choose from


def judge(material: Material) -> Credit:
    """1 where the normalised answer equals a normalised reference, else 0; a missing answer is wrong."""

    def credit(question: Example, prediction: Prediction) -> float:
        return float(exact_match(prediction.predicted, question.answers))

    return credit


def family(question: Example) -> tuple[str, ...]:
    """The question's family, if it has one."""
    return (question.family,) if question.family else ()


def class_of(question: Example) -> tuple[str, ...]:
    """The class that is the right answer."""
    return (question.answers[0],)


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """Exact match character by character and over the closed set, and the limits of the training vocabulary.

    ``closed``: the best of ``scores`` in place of the answer; ``None`` unless every answered line has scores.
    ``vocabulary``: for the ``TOP`` most frequent training answers and for all, their number (``answers``), the share
    of distinct references among them (``coverage``) and the share of questions with a reference among them
    (``ceiling``): the best result of any model that chooses from this list. ``None`` without a training split.
    """
    return {
        "exact_match_raw": mean([exact_match_raw(r.prediction.predicted, r.question.answers) for r in rows]),
        "closed": _closed(rows),
        "vocabulary": _vocabulary(rows, material) if material.train else None,
    }


def more_of_classes(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """The mean over classes, and the ranking of the closed set where lines have scores.

    ``mean_class_accuracy``: each class counts the same. ``not_a_class``: answers that match no class of these rows,
    and so are wrong. ``closed_top1``, ``closed_top5``: the share of clips with the right class at the top, or among
    the five best ``scores``; ``None`` unless every answered line has scores.
    """
    by_class: dict[str, list[float]] = {}
    for r in rows:
        by_class.setdefault(r.question.answers[0], []).append(r.credit)
    names = {normalise(name) for name in by_class}
    answered = [r for r in rows if r.prediction.predicted is not None]
    return {
        "mean_class_accuracy": mean([sum(credits) / len(credits) for credits in by_class.values()]),
        "not_a_class": sum(normalise(str(r.prediction.predicted)) not in names for r in answered),
        "closed_top1": _top(rows, answered, 1),
        "closed_top5": _top(rows, answered, 5),
    }


def protocol(
    name: str,
    about: str,
    source: str,
    *,
    parts: Callable[[Example], Iterable[str]] = family,
    more: Callable[[Sequence[Asked], Material], Mapping[str, Any]] = more,
    published: Mapping[str, int] | None = None,
) -> Protocol:
    """Questions with free answers, by exact match on the test split."""
    return Protocol(name, about, source, "exact_match", "test", judge, parts, more, published or {})


def class_protocol(split: str = "test", parts: Callable[[Example], Iterable[str]] = class_of, **about: Any) -> Protocol:
    """Classification as generation: the answer is the name of a class, by top-1."""
    return Protocol(
        metric="top1", split=split, judge=judge, parts=parts, more=more_of_classes, closed="classes", **about
    )


def _closed(rows: Sequence[Asked]) -> float | None:
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


def _top(rows: Sequence[Asked], answered: Sequence[Asked], count: int) -> float | None:
    if not answered or not all(r.prediction.scores for r in answered):
        return None
    best = ({normalise(answer) for answer in r.prediction.ranked()[:count]} for r in rows)
    return mean([normalise(r.question.answers[0]) in names for r, names in zip(rows, best, strict=True)])
