"""NExT-QA: why, how and when questions on videos of everyday life (Xiao et al. 2021), two tasks on the same videos.

Both have files ``{train,val,test}.csv`` with the columns video, frame_count, width, height, question, answer, qid,
type. Multiple choice has a0 to a4 too, and ``answer`` is the number of the right one: 34,132 / 4,996 / 8,564
questions; its options travel in ``Example.options``, in their order, and the right one is the first of the answers.
Open-ended has a text answer: 37,523 / 5,343 / 9,178, and a second reference for some of the test split in
``add_reference_answer_test.json`` {video: {qid: answer}}. Types are the family: causal CW, CH; temporal TN, TC, TP;
descriptive DC, DL, DO, and DB (yes or no) in the open-ended task alone. The videos are 3,870 / 570 / 1,000.

Official figures: multiple choice is accuracy over all, and over C, T and D with TP in TN (``eval_mc.py``).
Open-ended is WUPS, the better of the references, with DC and DB compared exactly; the two are different tasks.

Known faults: three questions of the open-ended train split have the video and qid of another (``#2`` follows
their ids). In two multiple-choice questions of the test split the right option's text stands twice, so that no
reader of texts can tell the official index from the other one; in one of them the official is the later.

Media: ``map_vid_vidorID.json`` has the folders of VidOR, ``1101/3397265196``; files by the bare id are found too.

Source: https://github.com/doc-doc/NExT-QA and NExT-OE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.tasks.base.annotations import Annotations, Record, RowError, read_json
from mirasol.tasks.base.importer import Adapter, Row

TYPES = {name: name for name in ("CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO", "DB")}
COLUMNS = ("video", "question", "answer", "qid", "type")
OPTIONS = ("a0", "a1", "a2", "a3", "a4")
FOLDERS, REFERENCES = "map_vid_vidorID.json", "add_reference_answer_test.json"


def read_choice(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    def answers(record: Record) -> dict[str, Any]:
        options = tuple(record.text(name) for name in OPTIONS)
        right = record.integer("answer")
        if right >= len(options):
            raise record.wrong("answer", "the number of an option, 0 to 4", right)
        return {"answers": (options[right],), "options": options}

    return _rows(annotations, path, (*COLUMNS, *OPTIONS), answers)


def read_open(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    more = _object(annotations, REFERENCES) if split == "test" else {}

    def answers(record: Record) -> dict[str, Any]:
        if OPTIONS[0] in record.values:
            raise RowError(
                f"{record.where}: a column {OPTIONS[0]!r}: this is the file of multiple choice, whose answers are "
                "numbers of options; those of the open-ended task lie in github.com/doc-doc/NExT-OE"
            )
        first = record.text("answer")
        second = more.get(record.text("video"), {}).get(record.text("qid"), first)
        return {"answers": tuple(dict.fromkeys((first, second)))}

    return _rows(annotations, path, COLUMNS, answers)


def _rows(
    annotations: Annotations, path: Path, columns: tuple[str, ...], answers: Callable[[Record], dict[str, Any]]
) -> Iterator[Row]:
    folders = _object(annotations, FOLDERS)

    def row(record: Record) -> Row:
        video = record.text("video")
        return Row(
            where=record.where,
            id=f"{video}_{record.integer('qid')}",
            names={"video": video, "vidor": folders.get(video, video)},
            group=video,
            prompt=record.text("question"),
            family=record.one_of("type", TYPES),
            **answers(record),
        )

    return annotations.rows(annotations.csv(path, columns), row)


def _object(annotations: Annotations, name: str) -> dict[str, Any]:
    """The object of an optional JSON file."""
    path = annotations.find(name)
    value = read_json(path) if path else {}
    if not isinstance(value, dict):
        raise MirasolError(f"{path}: expected an object by video, got {type(value).__name__}")
    return value


_FILES = {split: (f"{split}.csv",) for split in ("train", "val", "test")}
_SPLITS = {"train": "train", "val": "val", "test": "test"}
_FIELDS = ("video", "vidor")
_PATTERNS = ("{video}.*", "{vidor}.*")

CHOICE = Adapter(
    name="nextqa-mc",
    about="NExT-QA, multiple choice: why, how and when, five options each.",
    licence="MIT",
    files=_FILES,
    splits=_SPLITS,
    fields=_FIELDS,
    patterns=_PATTERNS,
    read=read_choice,
)
OPEN = Adapter(
    name="nextqa-oe",
    about="NExT-QA, open-ended: why, how and when, answered in words.",
    licence="MIT",
    files=_FILES,
    splits=_SPLITS,
    fields=_FIELDS,
    patterns=_PATTERNS,
    read=read_open,
)
