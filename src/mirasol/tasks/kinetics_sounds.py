"""Kinetics-Sounds: the audible classes of Kinetics (Arandjelovic and Zisserman 2017).

No list is official: 30, 31, 32, 33, 34 classes and the 36 of Mirasol3B's supplement all circulate. So the list is
configuration, a file next to the annotations: ``classes.json`` (a list of names, or {name: number}) or ``classes.txt``
(a name a line). Its number and hash are part of summary and score: compare figures of equal lists only.

Annotations: ``ids_to_class.json``, {split: {YouTube id: class}} (known with 30 classes, 19,220 / 1,947 / 1,958), which
needs no list, or the files of Kinetics itself, ``train.csv``, ``val.csv`` (or ``validate.csv``) and ``test.csv`` with
the columns label and youtube_id. Rows of other classes are left out and counted; a class of the list without any row
is misspelt, and an error.

Score: top-1 over the test split. Videos vanish from YouTube, so report how many you have. Media have the names of
Kinetics, ``YTID_000010_000020.mp4``, in one folder or in folders by class.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record, read_json
from mirasol.tasks.base.importer import Adapter, Row

IDS = "ids_to_class.json"


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    records = _ids(path, split) if path.name == IDS else annotations.csv(path, ("label", "youtube_id"))
    rows = list(annotations.rows(records, _row))
    labels = {row.answers[0] for row in rows}
    wanted = _class_list(annotations, path)
    for name in sorted(wanted - labels):
        near = difflib.get_close_matches(name, labels, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        annotations.wrong.append(f"{path}: the class {name!r} of the list has no row of the split {split}{hint}")
    others = annotations.notes.setdefault("rows_of_other_classes", {})
    others[split] = sum(row.answers[0] not in wanted for row in rows)
    return (row for row in rows if row.answers[0] in wanted)


def _row(record: Record) -> Row:
    label, youtube = record.text("label"), record.text("youtube_id")
    return Row(
        where=record.where, id=youtube, names={"youtube_id": youtube, "label": label}, group=youtube,
        answers=(label,), classes=(label,),
    )  # fmt: skip


def _ids(path: Path, split: str) -> Iterator[Record]:
    rows = read_json(path)
    if not isinstance(rows, dict) or not isinstance(rows.get(split), dict):
        raise MirasolError(f"{path}: expected {{split: {{YouTube id: class}}}}, and a split {split!r} in it")
    for youtube, label in rows[split].items():
        yield Record(f"{path}[{split}][{youtube}]", {"youtube_id": youtube, "label": label})


def _class_list(annotations: Annotations, rows: Path) -> set[str]:
    """The listed classes, without a list those of ``ids_to_class.json``; number and hash go to the notes."""
    path = annotations.find("classes.json", "classes.txt") or rows
    if path.name == "classes.json":
        value = read_json(path)
        if not isinstance(value, (list, dict)) or not all(isinstance(name, str) for name in value):
            raise MirasolError(f"{path}: expected a list of names, or an object {{name: number}}")
        names = set(value)
    elif path.name == "classes.txt":
        names = {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    elif path.name == IDS:
        names = {str(label) for split in read_json(path).values() for label in split.values()}
    else:
        names = set()
    if not names:
        raise MirasolError(
            f"{annotations.folder}: no list of classes: Kinetics-Sounds has no official one, so write the names into "
            "classes.txt there, one a line"
        )
    annotations.notes["class_list"] = {
        "file": path.name,
        "classes": len(names),
        "sha256": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(),
    }
    return names


ADAPTER = Adapter(
    name="kinetics-sounds",
    about="Kinetics-Sounds: the classes of Kinetics that can be heard, by a list of your choice.",
    licence="none stated",
    files={"train": (IDS, "train.csv"), "val": (IDS, "val.csv", "validate.csv"), "test": (IDS, "test.csv")},
    fields=("youtube_id", "label"),
    patterns=("{youtube_id}.*", "{youtube_id}_*.*", "{label}/{youtube_id}.*", "{label}/{youtube_id}_*.*"),
    read=read,
)
PROTOCOL = open_ended.class_protocol(
    name="kinetics-sounds",
    about="one class of a list of your choice, by top-1",
    source="Arandjelovic and Zisserman 2017; no official list or script",
)
