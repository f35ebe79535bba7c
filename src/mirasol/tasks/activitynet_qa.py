"""ActivityNet-QA: questions that people wrote about long videos (Yu et al. 2019).

Files ``{train,val,test}_q.json``, a list of {video_name, question, question_id}, and ``{train,val,test}_a.json``,
a list of {answer, type, question_id}; 32,000 / 18,000 / 8,000 questions, ten of each of 3,200 / 1,800 / 800 videos.
``video_name`` is the YouTube id without ActivityNet's ``v_``; ``question_id`` has it.

``All`` is exact match over every question. Known fault of the official ``evaluation/eval.py``: its denominator of
``Free`` adds up the counts of types in the order in which they first occur in the file, from the fourth on, which
are not the types 3 to 8. Right are 5,600 of the test split (8,000 less 800 each of motion, spatial and temporal).

Source: https://github.com/MILVLG/activitynet-qa
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mirasol.tasks.base.annotations import Annotations, Record, RowError
from mirasol.tasks.base.importer import Adapter, Row

TYPES = ("motion", "spatial", "temporal", "yes_no", "colour", "object", "location", "number", "other")


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    partner = annotations.need(path.name.replace("_q.", "_a."))
    answers: dict[str, Record] = {}
    for name, record in annotations.rows(annotations.json(partner), lambda r: (r.text("question_id"), r)):
        if name in answers:
            annotations.wrong.append(f"{record.where}: question_id: {name!r} stands in {answers[name].where} already")
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
            where=record.where,
            id=name,
            names={"video_name": video},
            group=video,
            answers=(answer.text("answer"),),
            prompt=record.text("question"),
            family=TYPES[number],
        )

    yield from annotations.rows(annotations.json(path), row)
    annotations.wrong += [f"{r.where}: question_id: {name!r} has no question in {path}" for name, r in answers.items()]


ADAPTER = Adapter(
    name="activitynet-qa",
    about="ActivityNet-QA: open questions on videos of minutes.",
    licence="Apache-2.0",
    files={split: (f"{split}_q.json",) for split in ("train", "val", "test")},
    splits={"train": "train", "val": "val", "test": "test"},
    fields=("video_name",),
    patterns=("v_{video_name}.*", "{video_name}.*"),
    read=read,
)
