"""The built-in world: exact match over all and per family, as the evaluate stage counts it.

Predictions that hold an answer for each condition, as the stage writes them, are scored under each: ``report`` is
then what stands in ``reports/eval.json``, to the digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirasol.data.manifest import clip_key
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import Asked, Material, Protocol
from mirasol.tasks.scoring.metrics import CONDITIONS, Constant, read_families, score


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """As on other sets, and ``report``, the score under every condition; ``None`` where lines hold one answer."""
    found = open_ended.more(rows, material)
    if any(not set(CONDITIONS) <= r.prediction.conditions.keys() for r in rows):
        return found | {"report": None}
    families = read_families(material.folders[0]) if material.folders else {}
    constant = Constant.learn((e.prompt, e.answers) for e in material.train)
    lines = [_line(r) for r in rows]
    return found | {"report": score(lines, families, constant, resamples=material.resamples, seed=material.seed)}


def _line(row: Asked) -> dict[str, Any]:
    question = row.question
    return {
        "clip": clip_key(question.media, question.start, question.end, question.split),
        "group": question.group,
        "family": question.family,
        "prompt": question.prompt,
        "answers": question.answers,
        "predicted": row.prediction.conditions,
    }


PROTOCOL = Protocol(
    name="world",
    about="open answers to the questions of the built-in world, by exact match",
    source="docs/world.md",
    metric="exact_match",
    split="test",
    judge=open_ended.judge,
    parts=open_ended.family,
    more=more,
)
