"""EPIC-SOUNDS: sounds of 44 classes as segments of long kitchen videos (Huh et al. 2023).

Annotations: ``EPIC_Sounds_train.csv`` and ``EPIC_Sounds_validation.csv`` (8,035 segments) with the columns
annotation_id, participant_id, video_id, start_timestamp, stop_timestamp, start_sample, stop_sample (24 kHz),
description, class, class_id, and ``EPIC_Sounds_recognition_test_timestamps.csv`` (5,131), which has no labels: its rows
are counted and give no examples. Names of classes may contain `` / ``, which does not separate answers.

Score: top-1 and mean accuracy of classes on validation, as published and in the paper, because the labels of the test
split are on a server; top-5 ranks the closed set, which generation alone cannot.
``--split train --split validation=test`` scores on validation and makes val from train. Start and stop are the time
stamps (milliseconds); the samples agree within 0.05 ms. Segments overlap, and the shortest last 0.2 s: a clip needs
its whole first chunk, so choose chunks no longer than that or expect rejects.

Media are the videos of EPIC-KITCHENS-100, ``P01/videos/P01_11.MP4``; the group is the video.

Source: https://github.com/epic-kitchens/epic-sounds-annotations
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record
from mirasol.tasks.base.importer import Adapter, Row

SEGMENT = ("annotation_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp")


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    if split == "test":
        rows = annotations.rows(annotations.csv(path, SEGMENT), _segment)
        annotations.notes["rows_without_label"] = {split: sum(1 for _ in rows)}
        return iter(())

    def row(record: Record) -> Row:
        start, end = _segment(record)
        label, video = record.text("class"), record.text("video_id")
        return Row(
            where=record.where, id=record.text("annotation_id"),
            names={"participant_id": record.text("participant_id"), "video_id": video}, group=video, answers=(label,),
            classes=(label,), start=start, end=end,
        )  # fmt: skip

    return annotations.rows(annotations.csv(path, (*SEGMENT, "class")), row)


def _segment(record: Record) -> tuple[float, float]:
    return record.seconds("start_timestamp"), record.seconds("stop_timestamp")


ADAPTER = Adapter(
    name="epic-sounds",
    about="EPIC-SOUNDS: 44 classes of kitchen sounds, segments inside long videos.",
    licence="CC-BY-NC-4.0",
    files={
        "train": ("EPIC_Sounds_train.csv",),
        "validation": ("EPIC_Sounds_validation.csv",),
        "test": ("EPIC_Sounds_recognition_test_timestamps.csv",),
    },
    renamed={"validation": "val"},
    fields=("participant_id", "video_id"),
    patterns=("{participant_id}/videos/{video_id}.*", "{participant_id}/{video_id}.*", "{video_id}.*"),
    read=read,
)
PROTOCOL = open_ended.class_protocol(
    name="epic-sounds",
    about="one of 44 classes of kitchen sounds, by top-1",
    source="Huh et al. 2023, https://github.com/epic-kitchens/epic-sounds-annotations",
    split="validation",
    published={"validation": 8_035},
    classes=44,
)
