"""``mirasol data check``: compares every shard with its hash, its index and the format."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.core.progress import Progress
from mirasol.data.loading.reader import remote_index
from mirasol.data.shards.format import INDEX_SUFFIX, Entry, members_of, object_name, read_index, read_tar_index
from mirasol.data.storage import RemoteFolder


def check_shards(folder: str | Path) -> dict[str, Any]:
    """Verify every tar of a set of shards, local or behind its URL; nothing is unpacked.

    Tars with the right hash are searched too: a forged tar comes with its own right hash.

    Returns:
        ``{"tars", "clips", "lost": [keys of clips that cannot be read], "damaged": [one line per fault], "remote":
        [URLs of damaged files]}``; ``damaged`` of a sound set is empty.

    Raises:
        MirasolError: the folder is not a finished set of shards, or the store of the tars cannot be reached.
    """
    folder = Path(folder)
    index = read_index(folder)
    remote = RemoteFolder(index["storage"]) if index.get("storage") else None
    sizes = remote.sizes() if remote is not None else {}
    tars = [tar for tars in index["splits"].values() for tar in tars]
    damaged: list[str] = []
    lost: list[str] = []
    urls: list[str] = []
    with Progress("check", len(tars), "tars") as progress:
        for tar in tars:
            with _local(folder, remote, sizes, tar) as path:
                try:
                    entries = (
                        remote_index(remote, tar) if remote else read_tar_index(folder / (tar["name"] + INDEX_SUFFIX))
                    )
                    bad, wrong = _check_tar(path, tar, entries)
                except MirasolError as error:  # without an index no clip can be read
                    keys = {name.partition(".")[0] for name in members_of(path)[0]} if path.is_file() else set()
                    bad, wrong = sorted(keys), [f"{error}; {tar['clips']} clip(s) cannot be read"]
                else:
                    if wrong and remote is not None:
                        urls.append(f"{remote.url}/{object_name(tar['name'], tar['sha256'])}")
            lost += bad
            damaged += [f"{tar['name']}: {line}" for line in wrong]
            progress.advance(1, damaged=len(damaged))
    clips = sum(tar["clips"] for tar in tars)
    return {"tars": len(tars), "clips": clips, "lost": lost, "damaged": damaged, "remote": urls}


@contextlib.contextmanager
def _local(folder: Path, remote: RemoteFolder | None, sizes: dict[str, int], tar: dict[str, Any]) -> Iterator[Path]:
    """The local path of a tar, absent if the tar is missing; a copy is removed at the end of the block."""
    if remote is None:
        yield folder / tar["name"]
        return
    name = object_name(tar["name"], tar["sha256"])
    with tempfile.TemporaryDirectory(prefix="mirasol-") as temporary:
        path = Path(temporary) / tar["name"]
        if name in sizes:
            remote.get(name, path)
        yield path


def _check_tar(path: Path, tar: dict[str, Any], entries: list[Entry]) -> tuple[list[str], list[str]]:
    """Keys of the lost clips, and one line per fault."""
    if not path.is_file():
        return [entry.key for entry in entries], ["is missing"]
    wrong = [] if len(entries) == tar["clips"] else [f"the index has {len(entries)} clips, the list {tar['clips']}"]
    members, foreign = members_of(path)
    lost: list[str] = []
    if path.stat().st_size != tar["bytes"] or sha256_file(path) != tar["sha256"]:
        wrong.append(f"the bytes do not match the hash ({path.stat().st_size} bytes, expected {tar['bytes']})")
        with path.open("rb") as file:
            for entry in entries:  # name the clips that suffer
                contents = {kind: _read(file, *place) for kind, place in entry.places.items()}
                if bad := _damaged_kinds(entry, contents):
                    lost.append(entry.key)
                    wrong += [f"clip {entry.key}: {kind} is damaged" for kind in bad]
    elif lost := _misplaced(path, entries, members):
        wrong.append(f"the index does not fit the tar: {len(lost)} clip(s) lie elsewhere")
    return lost, wrong + foreign


def _misplaced(path: Path, entries: list[Entry], members: dict[str, tuple[int, int]]) -> list[str]:
    """Keys that the index repeats, or has at another place or with another hash than the tar."""
    seen: set[str] = set()
    wrong = []
    with path.open("rb") as file:
        for entry in entries:
            fits = all(members.get(f"{entry.key}.{kind}") == tuple(place) for kind, place in entry.places.items())
            same = fits and "json" in entry.places and _same_json(entry, _read(file, *entry.places["json"]))
            if entry.key in seen or not same:
                wrong.append(entry.key)
            seen.add(entry.key)
    return wrong


def _same_json(entry: Entry, data: bytes) -> bool:
    return not entry.json or hashlib.sha256(data).digest() == entry.json


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _damaged_kinds(entry: Entry, contents: dict[str, bytes]) -> list[str]:
    """The kinds of file of a clip that differ from their hashes."""
    try:
        facts = json.loads(contents["json"])
        if not _same_json(entry, contents["json"]) or facts["key"] != entry.key:
            return ["json"]
        media = {kind: data for kind, data in contents.items() if kind != "json"}
        return [kind for kind, data in media.items() if hashlib.sha256(data).hexdigest() != facts["sha256"][kind]]
    except (ValueError, KeyError, TypeError):
        return ["json"]
