"""VGG-Sound: clips of ten seconds from YouTube, one of 309 classes of sound with a visible source (Chen et al. 2020).

Annotations: ``vggsound.csv`` without a header, rows ``ytid,start second,label,split`` (train or test), or for the test
split alone ``test.csv`` without a header, rows ``YTID_000300.mp4,label``: 15,446 of 309 classes. With ``stat.csv``
(``label,count,group``, no header), a label that it lacks is an error.

Score: top-1 over the 15,446 test clips; the supplement of Mirasol3B says 300 classes, the set has 309. Videos vanish
from YouTube, so published figures stand on fewer clips: the number of clips and the hash of their ids are part of the
score. Many clips contain more than one class (VGGSounder re-labels the test split; ``vggsounder.csv`` is not read).
Several clips can come from one video: the group is the YouTube id. The set has no val split: one is made from train.

Media are the clips under the names of the set, already cut: ``YTID_000300.mp4``.

Source: https://www.robots.ox.ac.uk/~vgg/data/vggsound/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record
from mirasol.tasks.base.importer import Adapter, Row

SPLITS = {"train": "train", "test": "test"}


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    known = _known(annotations)

    def row(record: Record) -> Row:
        if "name" in record.values:
            name = record.text("name")
            match = re.fullmatch(r"(.{11})_(\d{6})\.mp4", name)
            if match is None:
                raise record.wrong("name", "a name like YTID_000300.mp4, the YTID of 11 characters", name)
            youtube, start = match[1], int(match[2])
        else:
            youtube, start = record.text("youtube_id"), record.integer("start")
        label = record.one_of("label", known) if known else record.text("label")
        return Row(
            where=record.where, id=f"{youtube}_{start:06d}",
            names={"youtube_id": youtube, "start": start, "label": label}, group=youtube, answers=(label,),
            classes=(label,),
        )  # fmt: skip

    if path.name == "test.csv":
        return annotations.rows(annotations.csv(path, header=("name", "label")), row)
    records = annotations.csv(path, header=("youtube_id", "start", "label", "split"))
    return annotations.rows(_of(annotations, records, split), row)


def _of(annotations: Annotations, records: Iterator[Record], split: str) -> Iterator[Record]:
    for name, record in annotations.rows(records, lambda r: (r.one_of("split", SPLITS), r)):
        if name == split:
            yield record


def _known(annotations: Annotations) -> dict[str, str]:
    path = annotations.find("stat.csv")
    records = annotations.csv(path, header=("label", "count", "group")) if path else iter(())
    return {label: label for label in annotations.rows(records, lambda r: r.text("label"))}


ADAPTER = Adapter(
    name="vggsound",
    about="VGG-Sound: 309 classes of sound whose source is in the picture.",
    licence="CC-BY-4.0",
    files={"train": ("vggsound.csv",), "test": ("vggsound.csv", "test.csv")},
    fields=("youtube_id", "start", "label"),
    patterns=("{youtube_id}_{start:06d}.*",),
    read=read,
)
PROTOCOL = open_ended.class_protocol(
    name="vggsound",
    about="one of 309 classes of sound whose source is seen, by top-1",
    source="Chen et al. 2020, https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    parts=lambda question: (),
    published={"test": 15_446},
    classes=309,
)
