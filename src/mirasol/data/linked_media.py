"""Media that are linked and not copied: ``data/media`` links to their folder, ``data/media.jsonl`` lists their hashes.

DVC does not follow the link; it tracks the listing, one small file for any number of media. The listing is the
version of the media, and each reader compares them with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write, sha256_file
from mirasol.core.progress import Progress

LISTING = "media.jsonl"
SHOWN = 20


def write_listing(data_dir: Path, media: Iterable[str]) -> None:
    """Write ``media.jsonl``: bytes, time of change and SHA-256 of each of ``media``.

    Files with the size and time of the previous listing are not read again.
    """
    known = _read(data_dir) if (data_dir / LISTING).is_file() else {}
    names = sorted(set(media))
    with Progress("hash media", len(names), "files") as progress, atomic_write(data_dir / LISTING, "w") as file:
        for name in names:
            row = known.get(name)
            if row is None or not _looks_like(data_dir / name, row):
                stat = (data_dir / name).stat()
                row = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(data_dir / name)}
            file.write(json.dumps({"media": name} | row, sort_keys=True, ensure_ascii=False) + "\n")
            progress.advance()


def changed_media(data_dir: Path, media: Iterable[str] | None = None) -> list[str]:
    """A line for each of ``media`` (all listed files) that differs from ``media.jsonl``; none without a listing.

    Files with another size or time are hashed, so a ``touch`` or a copy to another machine is no change.

    Raises:
        MirasolError: the listing cannot be read, or the link to the media leads nowhere.
    """
    if not (data_dir / LISTING).is_file():
        return []
    known = _read(data_dir)
    if not (data_dir / "media").exists():
        raise MirasolError(
            f"{data_dir / 'media'} leads nowhere: these media were linked and not copied into {data_dir}. "
            f"Link to their folder on this machine: `ln -sfn FOLDER {data_dir / 'media'}`"
        )
    found = []
    for name in sorted(known) if media is None else media:
        if name not in known:
            found.append(f"{name}: is not listed")
        elif not (data_dir / name).is_file():
            found.append(f"{name}: is gone")
        elif not _looks_like(data_dir / name, known[name]) and sha256_file(data_dir / name) != known[name]["sha256"]:
            found.append(f"{name}: has changed")
    return found


def check_media(data_dir: Path, media: Iterable[str]) -> None:
    """Raise :class:`MirasolError` that lists those of ``media`` that differ from ``media.jsonl``."""
    if changed := changed_media(data_dir, media):
        title = (
            f"{len(changed)} media differ from {data_dir / LISTING}, the version of the data: import them again with "
            "`mirasol data import`, then `dvc add data`"
        )
        raise MirasolError(listing(title, changed, SHOWN))


def _looks_like(path: Path, row: dict[str, Any]) -> bool:
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) == (row["bytes"], row["mtime_ns"])


def _read(data_dir: Path) -> dict[str, dict[str, Any]]:
    path = data_dir / LISTING
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                found[row.pop("media")] = {name: row[name] for name in ("bytes", "mtime_ns", "sha256")}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise MirasolError(
                    f"{path}:{number}: not a line of a media listing ({error}): get the file with `dvc checkout`, or "
                    "import the media again with `mirasol data import`"
                ) from error
    return found
