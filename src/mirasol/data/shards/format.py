"""Tars of clips: equal contents give equal bytes, and nothing but clips may lie in one."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import IO

KINDS = ("mp4", "flac", "json")  # nothing else belongs in a shard, least of all what a reader might run
_CLIP_FILE = re.compile(rf"[0-9a-f]{{16}}\.({'|'.join(KINDS)})")
_TAR_NAME = re.compile(r"(train|val|test)-[0-9]{5,}\.tar")


class ShardWriter:
    """Writes a tar whose bytes depend on names and contents alone, and says where each file lies."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, files: dict[str, bytes]) -> dict[str, tuple[int, int]]:
        """Append ``key.kind`` for every kind; returns (offset, size) of each one's contents."""
        places = {}
        for kind, data in files.items():
            info = tarfile.TarInfo(f"{key}.{kind}")  # time, owner and mode are fixed by TarInfo's defaults
            info.size = len(data)
            places[kind] = (self._tar.offset + tarfile.BLOCKSIZE, len(data))
            self._tar.addfile(info, io.BytesIO(data))
        return places

    def close(self) -> None:
        self._tar.close()


def is_tar_name(name: str) -> bool:
    """Whether ``name`` is one that the shards stage gives: a plain name in the folder, no path."""
    return _TAR_NAME.fullmatch(name) is not None


def members_of(path: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """(offset, size) of every clip file in a tar by its name, and what does not belong there, a line each.

    Only headers are read and nothing is unpacked. Refused are links, folders, devices, names with a path, names
    that stand twice, and every kind of file but KINDS.
    """
    places: dict[str, tuple[int, int]] = {}
    strangers: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:  # "r:": never decompress
            for member in tar:
                if not member.isreg() or member.issparse() or not _CLIP_FILE.fullmatch(member.name):
                    strangers.append(f"holds {member.name!r}, which does not belong in a shard")
                elif member.name in places:
                    strangers.append(f"holds {member.name!r} twice")
                else:
                    places[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        strangers.append(f"is no whole tar: {error}")
    return places, strangers
