"""WebVid and similar files (Bain et al. 2021): a CSV with one caption a row, columns by name in any order.

Annotations: ``results_2M_train.csv``, ``results_10M_train.csv`` or ``train.csv``, and the same for val. The id of the
video is the column videoid (or video_id, id), the caption is name (or caption, text); page_dir, if present, is the
folder of the file: ``page_dir/videoid.mp4``. Other columns (duration, contentUrl) are ignored.

The set has no test split. It is no longer distributed and copies are partial, so report how many videos you have.
The group is the id; one video may have two ids: see ``duplicates_across_splits`` in the summary.

Source: https://github.com/m-bain/webvid
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mirasol.data.manifest import CAPTION_PROMPT
from mirasol.tasks.base.annotations import Annotations, Record, RowError
from mirasol.tasks.base.importer import Adapter, Row

IDS = ("videoid", "video_id", "id")
CAPTIONS = ("name", "caption", "text")


def read(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    return annotations.rows(annotations.csv(path), _row)


def _row(record: Record) -> Row:
    video = record.text(_column(record, IDS))
    return Row(
        where=record.where, id=video,
        names={"videoid": video, "page_dir": str(record.values.get("page_dir", "")).strip()}, group=video,
        answers=(record.text(_column(record, CAPTIONS)),), prompt=CAPTION_PROMPT, task="caption", family="",
    )  # fmt: skip


def _column(record: Record, names: tuple[str, ...]) -> str:
    for name in names:
        if name in record.values:
            return name
    raise RowError(f"{record.where}: no column {' or '.join(names)}: there are {', '.join(record.values)}")


ADAPTER = Adapter(
    name="webvid",
    about="WebVid and files like it: a caption for every video, for the pre-training.",
    licence="none stated",
    files={
        split: (f"results_2M_{split}.csv", f"results_10M_{split}.csv", f"{split}.csv") for split in ("train", "val")
    },
    fields=("videoid", "page_dir"),
    patterns=("{page_dir}/{videoid}.*", "{videoid}.*"),
    read=read,
)
