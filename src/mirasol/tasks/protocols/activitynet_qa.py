"""ActivityNet-QA (Yu et al. 2019): exact match over all questions, per type, and over the six free types together.

Source of the score: https://github.com/MILVLG/activitynet-qa, ``evaluation/eval.py``. It compares characters, so its
figures are our raw ones.

Its figure for `Free` has a fault. Right answers are added up over the types 3 to 8, but the questions over the types
that stand fourth and later in the order in which types first occur in the answer file: 4,021 on the test split and
8,399 on val, where 5,600 and 12,600 are asked. A model with every answer right gets 139 % and 150 %. Both figures
are given, ``free_official`` for comparison with those who used the script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.activitynet_qa import TYPES
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import DIGITS, Asked, Material, Protocol
from mirasol.tasks.scoring.normalise import exact_match_raw

FREE = TYPES[3:]


def parts(question: Example) -> tuple[str, ...]:
    """The type, and ``free`` for types 3 to 8."""
    return (question.family, "free") if question.family in FREE else (question.family,)


def official(rows: Sequence[Asked]) -> dict[str, Any]:
    """What ``eval.py`` prints for `All` and `Free`, and `Free` over the questions that are asked.

    Rows in the order of the set's files. ``None`` where no free question is asked, or where a type is not, which the
    script cannot score.
    """
    asked: Counter[str] = Counter(r.question.family for r in rows)  # in the order in which types first occur
    right = Counter(r.question.family for r in rows if exact_match_raw(r.prediction.predicted, r.question.answers))
    free, count = sum(right[name] for name in FREE), sum(asked[name] for name in FREE)
    wrong_count = sum(list(asked.values())[3:])
    return {
        "all": round(sum(right.values()) / len(rows), DIGITS),
        "free": round(free / count, DIGITS) if count else None,
        "free_official": round(free / wrong_count, DIGITS) if len(asked) == len(TYPES) else None,
        "free_questions": count,
        "free_official_questions": wrong_count,
    }


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    return open_ended.more(rows, material) | {"official": official(rows)}


PROTOCOL = Protocol(
    name="activitynet-qa",
    about="open answers to questions about videos of minutes, by exact match",
    source="Yu et al. 2019, https://github.com/MILVLG/activitynet-qa evaluation/eval.py",
    metric="exact_match",
    split="test",
    judge=open_ended.judge,
    parts=parts,
    more=more,
    published={"train": 32_000, "val": 18_000, "test": 8_000},
)
