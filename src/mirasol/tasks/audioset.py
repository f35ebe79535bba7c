"""AudioSet: clips of ten seconds from YouTube, with any of 527 classes of sound (Gemmeke et al. 2017).

Annotations: ``balanced_train_segments.csv`` (22,160), ``unbalanced_train_segments.csv``, ``eval_segments.csv`` (20,371)
and ``class_labels_indices.csv`` (index, mid, display_name). The originals begin with three lines of ``#``, separate
columns by ``, `` and write seconds as 30.000; a mirror has one or two such lines and whole seconds. Both can be read.
If the comment states ``num_segs``, a file with another number of rows is an error: it was cut off.

In the audio pre-training of Mirasol3B (S 4) the model generates "the text of the class names": the first answer joins
all names of the clip by ``; ``, in the order of the file, and each single name counts as right too. The official
figure of the set, mean average precision over 527 classes, needs scores of classes, not texts.

Published splits are train and eval, which becomes test; val is made from train. Videos vanish from YouTube: report how
many clips you have. Media are the segments, already cut: ``YTID.*``, ``YYTID.*`` or ``YTID_30_40.*``.

Source: https://research.google.com/audioset/download.html
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from mirasol.data.manifest import AUDIO_PROMPT
from mirasol.tasks.base.annotations import Annotations, Record
from mirasol.tasks.base.importer import Adapter, Row

HEADER = ("YTID", "start_seconds", "end_seconds", "positive_labels")
JOIN = "; "  # class names contain commas


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    labels = annotations.csv(annotations.need("class_labels_indices.csv"), ("mid", "display_name"))
    names = dict(annotations.rows(labels, lambda r: (r.text("mid"), r.text("display_name"))))

    def row(record: Record) -> Row:
        youtube, start, end = record.text("YTID"), record.seconds("start_seconds"), record.seconds("end_seconds")
        if end <= start:
            raise record.wrong("end_seconds", f"more than start_seconds = {start:g}", end)
        mids = [mid.strip() for mid in record.text("positive_labels").split(",")]
        unknown = [mid for mid in mids if mid not in names]
        if unknown:
            raise record.wrong("positive_labels", "labels of class_labels_indices.csv", unknown[0])
        classes = tuple(names[mid] for mid in mids)
        return Row(
            where=record.where, id=f"{youtube}_{start:g}",
            names={"youtube_id": youtube, "start": round(start), "end": round(end)}, group=youtube,
            answers=(JOIN.join(classes), *(classes if len(classes) > 1 else ())), prompt=AUDIO_PROMPT,
            task="audio_class", classes=classes,
        )  # fmt: skip

    number = 0
    for record in annotations.csv(path, header=HEADER, comment="#"):
        number += 1
        yield from annotations.rows((record,), row)
    stated = _stated(path)
    if stated not in (None, number):
        annotations.wrong.append(f"{path}: its head says num_segs={stated}, but it has {number} rows")


def _stated(path: Path) -> int | None:
    """The number of segments that the comment at the head of the file states."""
    with path.open(encoding="utf-8-sig") as file:
        head = "".join(line for line in itertools.islice(file, 3) if line.startswith("#"))
    match = re.search(r"num_segs=(\d+)", head)
    return int(match[1]) if match else None


ADAPTER = Adapter(
    name="audioset",
    about="AudioSet: the names of up to 527 classes as text, for the audio pre-training.",
    licence="CC-BY-4.0",
    files={
        "balanced_train": ("balanced_train_segments.csv",),
        "unbalanced_train": ("unbalanced_train_segments.csv",),
        "eval": ("eval_segments.csv",),
    },
    renamed={"balanced_train": "train", "unbalanced_train": "train", "eval": "test"},
    fields=("youtube_id", "start", "end"),
    patterns=("{youtube_id}.*", "Y{youtube_id}.*", "{youtube_id}_*.*"),
    read=read,
)
