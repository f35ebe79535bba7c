"""``mirasol data check``: every shard against its hash, its index and what a shard may hold."""

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
from mirasol.data.loading.reader import Entry, read_index, read_tar_index, remote_index
from mirasol.data.remote import RemoteFolder, object_name
from mirasol.data.shards.build import INDEX_SUFFIX
from mirasol.data.shards.format import members_of

Members = dict[str, tuple[int, int]]


def check_shards(folder: str | Path) -> dict[str, Any]:
    """Verify every tar of a set of shards, here or behind its URL; nothing is unpacked.

    A tar with the right hash is looked through too: whoever made it may have made its hash.

    Returns:
        ``{"tars", "clips", "lost": [keys of clips that cannot be read], "damaged": [what, one line each], "remote":
        [URLs of damaged files]}``; a sound set has an empty ``damaged``.

    Raises:
        MirasolError: the folder is no finished set of shards, or the store of the tars cannot be reached.
    """
    folder = Path(folder)
    index = read_index(folder)
    remote = RemoteFolder(index["storage"]) if index.get("storage") else None
    there = remote.sizes() if remote is not None else {}
    tars = [tar for tars in index["splits"].values() for tar in tars]
    damaged: list[str] = []
    lost: list[str] = []
    urls: list[str] = []
    clips = 0
    with Progress("check", len(tars), "tars") as progress:
        for tar in tars:
            with _local(folder, remote, there, tar) as path:
                try:
                    bad, wrong = _check_tar(path, tar, _entries(folder, remote, tar))
                except MirasolError as error:  # without an index no clip can be read, whatever the tar still has
                    bad, wrong = sorted(_keys_in(path)), [f"{error}; {tar['clips']} clip(s) cannot be read"]
                else:
                    if wrong and remote is not None:
                        urls.append(f"{remote.url}/{object_name(tar['name'], tar['sha256'])}")
            clips += tar["clips"]
            lost += bad
            damaged += [f"{tar['name']}: {line}" for line in wrong]
            progress.advance(1, damaged=len(damaged))
    return {"tars": len(tars), "clips": clips, "lost": lost, "damaged": damaged, "remote": urls}


def _entries(folder: Path, remote: RemoteFolder | None, tar: dict[str, Any]) -> list[Entry]:
    if remote is None:
        return read_tar_index(folder / (tar["name"] + INDEX_SUFFIX))
    return remote_index(remote, tar)


def _keys_in(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in members_of(path)[0]} if path.is_file() else set()


@contextlib.contextmanager
def _local(folder: Path, remote: RemoteFolder | None, there: dict[str, int], tar: dict[str, Any]) -> Iterator[Path]:
    """The tar as a local file, which is not there if the tar is not; a copy is removed at the end of the block."""
    if remote is None:
        yield folder / tar["name"]
        return
    name = object_name(tar["name"], tar["sha256"])
    with tempfile.TemporaryDirectory(prefix="mirasol-") as temporary:
        path = Path(temporary) / tar["name"]
        if name in there:
            remote.get(name, path)
        yield path


def _check_tar(path: Path, tar: dict[str, Any], entries: list[Entry]) -> tuple[list[str], list[str]]:
    """Keys of the clips that are lost, and what is wrong."""
    if not path.is_file():
        return [entry.key for entry in entries], ["is missing"]
    wrong = [] if len(entries) == tar["clips"] else [f"the index has {len(entries)} clips, the list {tar['clips']}"]
    members, strangers = members_of(path)
    lost: list[str] = []
    if path.stat().st_size != tar["bytes"] or sha256_file(path) != tar["sha256"]:
        # Which clips suffer, so that one knows whether it matters.
        wrong.append(f"the bytes do not match the hash ({path.stat().st_size} bytes, {tar['bytes']} belong)")
        lost, told = _check_clips(path, entries)
        wrong += told
    elif misplaced := _misplaced(path, entries, members):
        lost, wrong = misplaced, [*wrong, f"the index does not fit the tar: {len(misplaced)} clip(s) lie elsewhere"]
    return lost, wrong + strangers


def _misplaced(path: Path, entries: list[Entry], members: Members) -> list[str]:
    """Keys that the index has elsewhere than the tar, with another hash, or more often than once."""
    seen: set[str] = set()
    wrong = []
    with path.open("rb") as file:
        for entry in entries:
            lies = all(members.get(f"{entry.key}.{kind}") == tuple(place) for kind, place in entry.places.items())
            if entry.key in seen or "json" not in entry.places or not lies or not _same_json(file, entry):
                wrong.append(entry.key)
            seen.add(entry.key)
    return wrong


def _same_json(file: IO[bytes], entry: Entry) -> bool:
    return not entry.json or hashlib.sha256(_stretch(file, *entry.places["json"])).digest() == entry.json


def _stretch(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _check_clips(path: Path, entries: list[Entry]) -> tuple[list[str], list[str]]:
    """Keys of the clips that are damaged, and in what."""
    lost, wrong = [], []
    with path.open("rb") as file:
        for entry in entries:
            contents = {kind: _stretch(file, *place) for kind, place in entry.places.items()}
            if bad := _damaged(entry, contents):
                lost.append(entry.key)
                wrong += [f"clip {entry.key}: {kind} is damaged" for kind in bad]
    return lost, wrong


def _damaged(entry: Entry, contents: dict[str, bytes]) -> list[str]:
    """The kinds of file of a clip that are not what was written."""
    try:
        if entry.json and hashlib.sha256(contents["json"]).digest() != entry.json:
            return ["json"]
        facts = json.loads(contents["json"])
        if facts["key"] != entry.key:
            return ["json"]
        return [
            kind
            for kind, data in contents.items()
            if kind != "json" and hashlib.sha256(data).hexdigest() != facts["sha256"][kind]
        ]
    except (ValueError, KeyError, TypeError):
        return ["json"]
