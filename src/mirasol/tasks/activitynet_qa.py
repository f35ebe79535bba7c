"""ActivityNet-QA: questions that people wrote about long videos (Yu et al. 2019).

Annotations: ``{train,val,test}_q.json``, a list of {video_name, question, question_id}, and
``{train,val,test}_a.json``, a list of {answer, type, question_id}; 32,000 / 18,000 / 8,000 questions, ten for each of
3,200 / 1,800 / 800 videos.
``video_name`` is the YouTube id without ActivityNet's ``v_``; ``question_id`` has it.

Score: exact match over all questions, per type, and over the six free types together. The official script compares
characters, so its figures are our raw ones. Its `Free` is wrong: it adds up the right answers of types 3 to 8, but
divides by the questions of the fourth and later types in the order in which types first occur in the answer file:
4,021 instead of 5,600 on the test split, 8,399 instead of 12,600 on val. A perfect model gets 139 % and 150 %. Reports
give both figures; ``free_official`` compares with published ones.

Source: https://github.com/MILVLG/activitynet-qa, ``evaluation/eval.py``
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mirasol.data.manifest import Example
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record, RowError
from mirasol.tasks.base.importer import Adapter, Row
from mirasol.tasks.base.protocol import DIGITS, Asked, Material
from mirasol.tasks.scoring.normalise import exact_match_raw

TYPES = ("motion", "spatial", "temporal", "yes_no", "colour", "object", "location", "number", "other")
FREE = TYPES[3:]


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    partner = annotations.need(path.name.replace("_q.", "_a."))
    answers: dict[str, Record] = {}
    for name, record in annotations.rows(annotations.json(partner), lambda r: (r.text("question_id"), r)):
        if name in answers:
            annotations.wrong.append(f"{record.where}: question_id: {name!r} is already in {answers[name].where}")
        answers[name] = record

    def row(record: Record) -> Row:
        name, video = record.text("question_id"), record.text("video_name")
        answer = answers.pop(name, None)
        if answer is None:
            raise RowError(f"{record.where}: question_id: {name!r} has no answer in {partner}")
        number = answer.integer("type")
        if number >= len(TYPES):
            raise answer.wrong("type", f"0 to {len(TYPES) - 1}", number)
        return Row(
            where=record.where, id=name, names={"video_name": video}, group=video, answers=(answer.text("answer"),),
            prompt=record.text("question"), family=TYPES[number],
        )  # fmt: skip

    yield from annotations.rows(annotations.json(path), row)
    annotations.wrong += [f"{r.where}: question_id: {name!r} has no question in {path}" for name, r in answers.items()]


def parts(question: Example) -> tuple[str, ...]:
    """The type, and ``free`` for types 3 to 8."""
    return (question.family, "free") if question.family in FREE else (question.family,)


def official(rows: Sequence[Asked]) -> dict[str, Any]:
    """The figures `All` and `Free` of ``eval.py``, and `Free` over the questions that are really asked.

    Expects rows in the order of the set's files. A figure is ``None`` without free questions, and ``free_official``
    without questions of every type, which the script cannot score.
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


ADAPTER = Adapter(
    name="activitynet-qa",
    about="ActivityNet-QA: open questions on videos of minutes.",
    licence="Apache-2.0",
    files={split: (f"{split}_q.json",) for split in ("train", "val", "test")},
    fields=("video_name",),
    patterns=("v_{video_name}.*", "{video_name}.*"),
    read=read,
)
PROTOCOL = open_ended.protocol(
    name="activitynet-qa",
    about="open answers to questions about videos of minutes, by exact match",
    source="Yu et al. 2019, https://github.com/MILVLG/activitynet-qa evaluation/eval.py",
    parts=parts,
    more=more,
    published={"train": 32_000, "val": 18_000, "test": 8_000},
)
