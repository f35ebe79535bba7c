"""Tiny annotation files in the exact format of each published set, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mirasol.data.adapters.importing import import_set
from mirasol.data.adapters.table import ADAPTERS
from mirasol.data.manifest import Example, read_manifest

NEXT_MC = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
NEXT_OE = "video,frame_count,width,height,question,answer,qid,type\n"
EPIC = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample"
EPIC_TEST = f"{EPIC}\nP02_106_0,P02,P02_106,00:00:03.855,00:00:04.142,92520,99408\n"
EPIC_ROW = "P01_11_0,P01,P01_11,00:01:02.069,00:01:02.993,49656,71832,clang / clatter,ceramic / wood collision,34"
MIDS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write ``files`` to ``folder``: a text as it is, anything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def counted(name: str, folder: Path, files: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The summary of a dry run without media."""
    return import_set(ADAPTERS[name], write(folder / name, files), None, folder / "none", dry_run=True, **options)


def imported(name: str, folder: Path, files: dict[str, Any], media: list[str], **options: Any) -> list[Example]:
    """The rows of the manifest that ``files`` and ``media`` of a few bytes give."""
    (folder / "videos").mkdir()
    for number, path in enumerate(media):
        target = folder / "videos" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * (number + 1))
    import_set(ADAPTERS[name], write(folder / name, files), folder / "videos", folder / "data", **options)
    return read_manifest(folder / "data/manifest.jsonl")
