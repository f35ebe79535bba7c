"""A folder in which annotated files arrive, and whether it holds anything new that is whole.

The folder holds `annotations.csv` (or `.jsonl`), which lists all rows, and the media. Nothing is imported while a file
has changed within the last seconds: an upload may be under way. The age is that of the inode's change, which neither a
copy that keeps times nor a camera's clock can set.
"""

from __future__ import annotations

import filecmp
import json
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.data.storage import RemoteFolder, is_url

ANNOTATIONS = ("annotations.csv", "annotations.jsonl")
STATE = Path("runs", "loop.json")
COPY = Path("runs", "incoming")


@dataclass(frozen=True)
class Incoming:
    """The contents of the folder at one moment."""

    folder: Path
    annotations: Path | None
    files: int
    version: str  # SHA-256 of all names, sizes and times
    age: float  # seconds since the last change of a file; infinite without files


def read_incoming(folder: Path) -> Incoming:
    """List ``folder`` with its subfolders; reads no file.

    Raises:
        MirasolError: no such folder, or two annotation files.
    """
    if not folder.is_dir():
        raise MirasolError(f"{folder}: no such folder: expected one with {ANNOTATIONS[0]} and the media that it lists")
    listed = [folder / name for name in ANNOTATIONS if (folder / name).is_file()]
    if len(listed) > 1:
        raise MirasolError(f"{folder} holds {' and '.join(ANNOTATIONS)}: expected one of them, with all rows")
    lines, latest = [], float("-inf")
    for path in sorted(folder.rglob("*")):
        try:
            info = path.stat()
        except FileNotFoundError:
            continue  # renamed meanwhile
        if stat.S_ISREG(info.st_mode):
            lines.append(f"{path.relative_to(folder)}\t{info.st_size}\t{info.st_mtime_ns}")
            latest = max(latest, info.st_ctime)
    version = sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    return Incoming(folder, listed[0] if listed else None, len(lines), version, time.time() - latest)


def local_copy(root: Path, incoming: str, say: Callable[[str], None]) -> Path:
    """The folder ``incoming``, relative to ``root``; for a URL a copy in runs/incoming, with what is new there.

    An object is copied again when its size changes, the annotation file also when its content does. Objects in
    subfolders are not copied.

    Raises:
        MirasolError: the store cannot be reached.
    """
    if not is_url(incoming):
        return root / incoming
    remote, folder = RemoteFolder(incoming), root / COPY
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for name, size in sorted(remote.sizes().items()):
            target, part = folder / name, Path(temporary, "part")
            known = target.is_file() and target.stat().st_size == size
            if known and name not in ANNOTATIONS:
                continue
            remote.get(name, part)
            if not known or not filecmp.cmp(part, target, shallow=False):
                part.replace(target)
                say(f"{name}: {size:,} bytes")
    return folder


def finished(root: Path) -> tuple[str, str]:
    """The version of the folder that was imported, trained and judged last, and its result; "" before the first."""
    try:
        values = json.loads((root / STATE).read_text(encoding="utf-8"))
        return str(values["version"]), str(values["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""  # everything is looked at again, which changes nothing


def finish(root: Path, found: Incoming, result: str) -> None:
    """Record that this version needs no more work."""
    write_json(root / STATE, {"version": found.version, "result": result})
