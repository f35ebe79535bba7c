"""NExT-QA, multiple choice (Xiao et al. 2021): accuracy over all, over C, T and D, and per type, TP counted in TN.

Source of the score: https://github.com/doc-doc/NExT-QA, ``eval_mc.py``. The answer is the text of an option. In two
questions of the test split the right text stands twice, and either counts (decision 0030): at most 0.01 points.

The paper calls its NExT-QA task open-ended, but its Table 3 stands beside figures of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.base.protocol import Asked, Credit, Material, Protocol
from mirasol.tasks.scoring.normalise import normalise
from mirasol.tasks.scoring.predictions import Prediction


def choice(predicted: str | None, options: Sequence[str]) -> str | None:
    """The option that ``predicted`` is: by its characters, or else the only one that is equal when normalised."""
    if predicted is None or predicted in options:
        return predicted
    alike = [option for option in dict.fromkeys(options) if normalise(option) == normalise(predicted)]
    return alike[0] if len(alike) == 1 else None


def judge(material: Material) -> Credit:
    """1 where the option chosen is the right one."""

    def credit(question: Example, prediction: Prediction) -> float:
        return float(choice(prediction.predicted, question.options) == question.answers[0])

    return credit


def parts(question: Example) -> tuple[str, ...]:
    """The type and its first letter: causal, temporal or descriptive."""
    kind = "TN" if question.family == "TP" else question.family
    return kind[0], kind


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """``not_an_option``: answers that are none of the five, and so wrong."""
    answered = [r for r in rows if r.prediction.predicted is not None]
    return {"not_an_option": sum(choice(r.prediction.predicted, r.question.options) is None for r in answered)}


PROTOCOL = Protocol(
    name="nextqa-mc",
    about="one of five answers to why, how and when, by accuracy",
    source="Xiao et al. 2021, https://github.com/doc-doc/NExT-QA eval_mc.py",
    metric="accuracy",
    split="test",
    judge=judge,
    parts=parts,
    more=more,
    published={"train": 34_132, "val": 4_996, "test": 8_564},
    closed="options",
)
