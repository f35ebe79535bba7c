"""MSVD-QA: questions made by rule from the captions of MSVD (Xu et al. 2017).

Annotations: ``{train,val,test}_qa.json``, a list of {answer, id, question, video_id}, and ``youtube_mapping.txt`` with
lines ``YTID_start_end vidN``; 30,933 / 6,415 / 13,157 questions on 1,161 / 245 / 504 clips, numbered 1-1200, 1201-1450
and 1451-1970. Score: exact match over every question of the test split, and by the first word.

The group is the YouTube video, from the mapping; without that file it is the clip. Known fault: the splits were cut in
the order of names, so the clips 1198-1201 of one video are in train and val. They stay where they were published, as a
group of each split, and the summary names them.

Source: https://github.com/xudejing/video-question-answering
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record, RowError
from mirasol.tasks.base.importer import Adapter, Row
from mirasol.tasks.msrvtt_qa import family_of

MAPPING = "youtube_mapping.txt"


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    clips = _clips(annotations)

    def row(record: Record) -> Row:
        if "category_id" in record.values:
            raise RowError(f"{record.where}: a key 'category_id': rows of MSRVTT-QA have it, MSVD-QA's do not")
        number, question = record.integer("video_id"), record.text("question")
        clip = clips.get(number, f"vid{number}")
        return Row(
            where=record.where, id=f"msvd-{record.integer('id')}", names={"video_id": number, "clip": clip},
            group=clip.rsplit("_", 2)[0], answers=(record.text("answer"),), prompt=question,
            family=family_of(question),
        )  # fmt: skip

    return annotations.rows(annotations.json(path), row)


def _clips(annotations: Annotations) -> dict[int, str]:
    """Number of a clip -> YTID_start_end, of those that the mapping has."""
    path = annotations.find(MAPPING)
    if path is None:
        annotations.notes["groups_are"] = f"clips, not source videos: there is no {MAPPING}"
        return {}
    clips = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r"(\S+_\d+_\d+)\s+vid(\d+)", text.strip())
        if match:
            clips[int(match[2])] = match[1]
        elif text.strip():
            annotations.wrong.append(f"{path}:{line}: expected YTID_start_end and vidN, got {text!r}")
    return clips


ADAPTER = Adapter(
    name="msvd-qa",
    about="MSVD-QA: open questions on short YouTube clips, with what sound they have.",
    licence="none stated",
    files={split: (f"{split}_qa.json",) for split in ("train", "val", "test")},
    fields=("video_id", "clip"),
    patterns=("vid{video_id}.*", "{clip}.*"),
    read=read,
)
PROTOCOL = open_ended.protocol(
    name="msvd-qa",
    about="open answers to questions about short YouTube clips, by exact match",
    source="Xu et al. 2017, https://github.com/xudejing/video-question-answering",
    published={"train": 30_933, "val": 6_415, "test": 13_157},
)
