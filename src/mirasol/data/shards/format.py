"""The format of shards, which writer and reader share: tars of clips, their indexes, and ``shards.json``.

Equal contents give equal bytes, and a tar holds clips only. Hand-written index: webdataset reads tars in order, and
its wids index stores neither offsets by kind nor hashes.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mirasol.core.errors import MirasolError, listing

FORMAT = "mirasol-shards-1"
INDEX = "shards.json"
INDEX_SUFFIX = ".idx.json"
KINDS = ("mp4", "flac", "json")  # no other kind of file, least of all code that a reader might run
HASHED = 16  # hexadecimal characters of the SHA-256 in the name of an object
_CLIP_FILE = re.compile(rf"[0-9a-f]{{16}}\.({'|'.join(KINDS)})")
_TAR_NAME = re.compile(r"(train|val|test)-[0-9]{5,}\.tar")
_HASH = re.compile(r"[0-9a-f]{64}")

Places = dict[str, list[int]]  # {kind: [offset, size]}


class DamagedClip(MirasolError):
    """A clip of a shard cannot be read: its ``key``, and ``why`` without the path."""

    def __init__(self, message: str, key: str = "", why: str = "") -> None:
        super().__init__(message)
        self.key, self.why = key, why

    def __reduce__(self) -> Any:  # else a loader process could not send it
        return type(self), (str(self), self.key, self.why)


@dataclass(frozen=True)
class Entry:
    """A clip in the index of a tar; ``json`` is the SHA-256 of its JSON, empty in sets of earlier versions."""

    key: str
    places: Places
    json: bytes


class ShardWriter:
    """Writes a tar that depends only on names and contents, and returns the place of each file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, files: dict[str, bytes]) -> dict[str, tuple[int, int]]:
        """Append ``key.kind`` for every kind; returns (offset, size) of the contents of each."""
        places = {}
        for kind, data in files.items():
            info = tarfile.TarInfo(f"{key}.{kind}")  # TarInfo's defaults fix time, owner and mode
            info.size = len(data)
            places[kind] = (self._tar.offset + tarfile.BLOCKSIZE, len(data))
            self._tar.addfile(info, io.BytesIO(data))
        return places

    def close(self) -> None:
        self._tar.close()


def object_name(name: str, sha256: str) -> str:
    """``train-00000.tar`` with its hash: ``train-00000.0123456789abcdef.tar``; an index likewise."""
    stem, suffix = name.split(".", 1)
    return f"{stem}.{sha256[:HASHED]}.{suffix}"


def read_index(folder: Path) -> dict[str, Any]:
    """``shards.json`` of a finished set.

    Raises:
        MirasolError: it is missing (the set is unfinished), of another version, or names files elsewhere.
    """
    path = folder / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, expected {FORMAT!r}")
        tars = [tar for tars in index["splits"].values() for tar in tars]
        names = [str(tar["name"]) for tar in tars]
        storage = str(index.get("storage", ""))
        unhashed = [n for n, tar in zip(names, tars, strict=True) if storage and not _has_hashes(tar)]
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file: make the shards with `dvc repro shards`") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(
            f"{path}: not shards of this version ({error}): make them with `dvc repro shards`"
        ) from error
    wrong = [
        f"{n!r} is not the name of a shard, expected one like train-00000.tar"
        for n in names
        if not _TAR_NAME.fullmatch(n)
    ]
    wrong += [f"{name!r} has no hashes" for name in unhashed]
    if storage:
        from mirasol.data.storage import check_folder  # sets on the local disk do without

        if refused := check_folder(storage):
            wrong.append(f"storage: {refused}")
    if wrong:
        title = f"{path}: it may have been written to reach other files, so nothing is read: `dvc repro -f shards`"
        raise MirasolError(listing(title, wrong, 10))
    return index


def _has_hashes(tar: dict[str, Any]) -> bool:
    return all(_HASH.fullmatch(str(tar.get(name))) for name in ("sha256", "index_sha256"))


def read_tar_index(path: Path) -> list[Entry]:
    """Every clip in a tar.

    Raises:
        MirasolError: the file is missing or damaged.
    """
    try:
        return parse_tar_index(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(
            f"{path}: not the index of a tar ({error}): make it again with `dvc repro -f shards`"
        ) from error


def parse_tar_index(data: bytes) -> list[Entry]:
    """The clips in the bytes of an index; malformed bytes raise ValueError, KeyError, TypeError or AttributeError."""
    index = json.loads(data)
    samples = index["samples"]
    hashes = [bytes.fromhex(text) for text in index.get("json_sha256", [""] * len(samples))]
    return [
        Entry(str(key), {str(kind): [int(a), int(b)] for kind, (a, b) in places.items()}, digest)
        for (key, places), digest in zip(samples, hashes, strict=True)
    ]


def members_of(path: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """(offset, size) of every clip file in a tar by its name, and a line for each member that does not belong.

    Reads headers only and unpacks nothing. Refuses links, folders, devices, names with a path, repeated names, and
    every kind of file outside KINDS.
    """
    places: dict[str, tuple[int, int]] = {}
    foreign: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:  # "r:": never decompress
            for member in tar:
                if not member.isreg() or member.issparse() or not _CLIP_FILE.fullmatch(member.name):
                    foreign.append(f"holds {member.name!r}, which does not belong in a shard")
                elif member.name in places:
                    foreign.append(f"holds {member.name!r} twice")
                else:
                    places[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        foreign.append(f"is not a whole tar: {error}")
    return places, foreign
