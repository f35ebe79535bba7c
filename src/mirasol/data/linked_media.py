"""Media that stay where they are: ``data/media`` is a link to their folder, ``data/media.jsonl`` lists what they were.

DVC does not follow the link: it tracks the listing, one small file for any number of media. The listing is the
version of the media, and whoever reads them checks that they still are what it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file
from mirasol.core.progress import Progress
from mirasol.data.manifest import listing

LISTING = "media.jsonl"
SHOWN = 20


def write_listing(data_dir: Path, media: Iterable[str]) -> None:
    """Write ``media.jsonl``: of each of ``media`` its bytes, time of change and SHA-256.

    Files whose size and time are those of the listing that was there are not read again.
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
    """What is not as ``media.jsonl`` says, of all that it lists or of ``media``, a line each; none without a listing.

    Files of another size or time are read, so that a ``touch`` or a copy to another machine is no change.

    Raises:
        MirasolError: the listing cannot be read, or the link to the media leads nowhere.
    """
    if not (data_dir / LISTING).is_file():
        return []
    known = _read(data_dir)
    if not (data_dir / "media").exists():
        raise MirasolError(
            f"{data_dir / 'media'} leads nowhere: these media are not in {data_dir} but where they were imported from. "
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
    """Raise :class:`MirasolError` that lists those of ``media`` that are not as ``media.jsonl`` says."""
    if changed := changed_media(data_dir, media):
        title = (
            f"{len(changed)} media are not what {data_dir / LISTING} says, so that results would not be those of this "
            "version of the data: import them again with `mirasol data import`, then `dvc add data`"
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
                    f"{path}:{number}: no line of a listing of media ({error}): get the file with `dvc checkout`, or "
                    "import the media again with `mirasol data import`"
                ) from error
    return found
