"""AudioCaps: captions that people wrote for clips of AudioSet (Kim et al. 2019).

Annotations: ``{train,val,test}.csv`` with the columns audiocap_id, youtube_id, start_time, caption; 49,838 / 2,475 /
4,875 rows: one caption for each of 49,838 clips of train, five for each of 495 and 975 clips of val and test.

The official figures (CIDEr, SPIDEr) compare a caption with all five references of its clip, here five rows of one
clip: collect them by clip. Videos vanish from YouTube, so copies of the set differ: report how many clips yours has.
Media are the ten seconds from start_time, already cut.

Source: https://github.com/cdjkim/audiocaps
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mirasol.data.manifest import CAPTION_PROMPT
from mirasol.tasks.base.annotations import Annotations, Record
from mirasol.tasks.base.importer import Adapter, Row

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    return annotations.rows(annotations.csv(path, COLUMNS), _row)


def _row(record: Record) -> Row:
    youtube, start = record.text("youtube_id"), record.integer("start_time")
    return Row(
        where=record.where, id=f"audiocaps-{record.integer('audiocap_id')}",
        names={"youtube_id": youtube, "start": start}, group=youtube, answers=(record.text("caption"),),
        prompt=CAPTION_PROMPT, task="caption", family="",
    )  # fmt: skip


ADAPTER = Adapter(
    name="audiocaps",
    about="AudioCaps: captions of sounds.",
    licence="MIT",
    files={split: (f"{split}.csv",) for split in ("train", "val", "test")},
    fields=("youtube_id", "start"),
    patterns=("{youtube_id}_{start}.*", "{youtube_id}.*", "Y{youtube_id}.*", "{youtube_id}_*.*"),
    read=read,
)
