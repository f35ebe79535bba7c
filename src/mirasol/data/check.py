"""``mirasol data check``: every shard against its hash, its index and what a shard may hold."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from mirasol.core.files import sha256_file
from mirasol.core.progress import Progress
from mirasol.data.shards import INDEX_SUFFIX
from mirasol.data.shardset import read_index, read_tar_index

KINDS = ("mp4", "flac", "json")  # nothing else belongs in a shard, least of all what a reader might run


def check_shards(folder: str | Path) -> dict[str, Any]:
    """Verify every tar of a set of shards.

    Returns:
        ``{"tars", "clips", "damaged": [what, one line each]}``; a sound set has an empty ``damaged``.

    Raises:
        MirasolError: the folder is no finished set of shards.
    """
    folder = Path(folder)
    tars = [tar for tars in read_index(folder)["splits"].values() for tar in tars]
    damaged: list[str] = []
    clips = 0
    with Progress("check", len(tars), "tars") as progress:
        for tar in tars:
            found, wrong = _check_tar(folder / tar["name"], tar)
            clips += found
            damaged += [f"{tar['name']}: {line}" for line in wrong]
            progress.advance(1, damaged=len(damaged))
    return {"tars": len(tars), "clips": clips, "damaged": damaged}


def _check_tar(path: Path, tar: dict[str, Any]) -> tuple[int, list[str]]:
    """Number of clips, and what is wrong."""
    if not path.is_file():
        return 0, ["is missing"]
    places = read_tar_index(path.with_name(path.name + INDEX_SUFFIX))
    wrong = [] if len(places) == tar["clips"] else [f"the index has {len(places)} clips, the list {tar['clips']}"]
    if path.stat().st_size == tar["bytes"] and sha256_file(path) == tar["sha256"]:
        return len(places), wrong
    # Which clips suffer, so that one knows whether it matters.
    wrong.append(f"the bytes do not match the hash ({path.stat().st_size} bytes, {tar['bytes']} belong)")
    with path.open("rb") as file:
        for key, files in places:
            wrong += [f"clip {key}: {line}" for line in _check_clip(file, files)]
    return len(places), wrong + _strangers(path)


def _check_clip(file: Any, files: dict[str, list[int]]) -> list[str]:
    contents = {}
    for kind, (offset, size) in files.items():
        file.seek(offset)
        contents[kind] = file.read(size)
    try:
        hashes = json.loads(contents["json"])["sha256"]
        return [
            f"{kind} is damaged"
            for kind, data in contents.items()
            if kind != "json" and hashlib.sha256(data).hexdigest() != hashes[kind]
        ]
    except (ValueError, KeyError, TypeError):
        return ["json is damaged"]


def _strangers(path: Path) -> list[str]:
    """Members that no shard has: links, folders, other names."""
    try:
        with tarfile.open(path) as tar:
            return [
                f"holds {member.name!r}, which does not belong in a shard"
                for member in tar
                if not (member.isreg() and member.name.isascii() and _is_clip_file(member.name))
            ]
    except tarfile.TarError as error:
        return [f"is no tar: {error}"]


def _is_clip_file(name: str) -> bool:
    key, _, kind = name.partition(".")
    return kind in KINDS and len(key) == 16 and all(c in "0123456789abcdef" for c in key)
