"""MSRVTT-QA: questions made by rule from the captions of MSR-VTT (Xu et al. 2017).

Annotations: ``{train,val,test}_qa.json``, a list of {answer, category_id, id, question, video_id}; 158,581 / 12,278 /
72,821 questions on 6,513 / 497 / 2,990 clips, numbered 0-6512, 6513-7009 and 7010-9999.

Score: exact match over every question of the test split, and by the first word; missing videos count as wrong.
Mirasol3B reports it open-ended (P Table 1).

Known faults: questions and answers come from a program and keep its mistakes ("coversation"). Common code lowers and
strips the answers of the train split, not those of test: compare through one normaliser. The clips were cut from 7,180
videos, which these files do not name: the group is the clip.

Source: https://github.com/xudejing/video-question-answering
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record, RowError
from mirasol.tasks.base.importer import Adapter, Row

FAMILIES = ("what", "who", "how", "when", "where")  # by the first word, as the paper of the set counts them


def family_of(question: str) -> str:
    """The family of a question by its first word."""
    first = question.split()[0].lower()
    return first if first in FAMILIES else "other"


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    def row(record: Record) -> Row:
        if "category_id" not in record.values:
            raise RowError(f"{record.where}: no key 'category_id': rows of MSRVTT-QA have it, MSVD-QA's do not")
        number, question = record.integer("video_id"), record.text("question")
        return Row(
            where=record.where, id=f"msrvtt-{record.integer('id')}", names={"video_id": number},
            group=f"video{number}", answers=(record.text("answer"),), prompt=question, family=family_of(question),
        )  # fmt: skip

    return annotations.rows(annotations.json(path), row)


ADAPTER = Adapter(
    name="msrvtt-qa",
    about="MSRVTT-QA: open questions on short web clips.",
    licence="none stated",
    files={split: (f"{split}_qa.json",) for split in ("train", "val", "test")},
    fields=("video_id",),
    patterns=("video{video_id}.*",),
    read=read,
)
PROTOCOL = open_ended.protocol(
    name="msrvtt-qa",
    about="open answers to questions about short web clips, by exact match",
    source="Xu et al. 2017, https://github.com/xudejing/video-question-answering",
    published={"train": 158_581, "val": 12_278, "test": 72_821},
)
