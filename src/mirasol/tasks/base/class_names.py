"""Classification as open-ended generation (P 4): the answer is the name of a class. What the sets of classes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirasol.tasks.base.protocol import Asked, Material, mean
from mirasol.tasks.scoring.normalise import normalise


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """Mean over classes, and the ranking of the closed set where lines have scores.

    ``mean_class_accuracy``: each class counts the same. ``not_a_class``: answers that name no class of these rows,
    and so are wrong. ``closed_top1`` and ``closed_top5``: the share of clips whose class has the best, or one of the
    five best ``scores``; ``None`` unless every answered line has scores.
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


def _top(rows: Sequence[Asked], answered: Sequence[Asked], count: int) -> float | None:
    if not answered or not all(r.prediction.scores for r in answered):
        return None
    hits = []
    for r in rows:
        best = {normalise(answer) for answer in r.prediction.ranked()[:count]}
        hits.append(normalise(r.question.answers[0]) in best)
    return mean(hits)
