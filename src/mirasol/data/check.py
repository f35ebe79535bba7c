"""``mirasol data check``: every shard against its hash, its index and what a shard may hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.core.progress import Progress
from mirasol.data.shards import INDEX_SUFFIX
from mirasol.data.shardset import read_index, read_tar_index
from mirasol.data.tar import is_tar_name, members_of

Places = list[tuple[str, dict[str, list[int]]]]


def check_shards(folder: str | Path) -> dict[str, Any]:
    """Verify every tar of a set of shards; nothing is unpacked.

    A tar with the right hash is looked through too: whoever made it may have made its hash.

    Returns:
        ``{"tars", "clips", "lost": [keys of clips that cannot be read], "damaged": [what, one line each]}``; a sound
        set has an empty ``damaged``.

    Raises:
        MirasolError: the folder is no finished set of shards.
    """
    folder = Path(folder)
    tars = [tar for tars in read_index(folder)["splits"].values() for tar in tars]
    damaged: list[str] = []
    lost: list[str] = []
    clips = 0
    with Progress("check", len(tars), "tars") as progress:
        for tar in tars:
            found, bad, wrong = _check_tar(folder, tar)
            clips += found
            lost += bad
            damaged += [f"{tar['name']}: {line}" for line in wrong]
            progress.advance(1, damaged=len(damaged))
    return {"tars": len(tars), "clips": clips, "lost": lost, "damaged": damaged}


def _check_tar(folder: Path, tar: dict[str, Any]) -> tuple[int, list[str], list[str]]:
    """Number of clips, keys of those that are lost, and what is wrong."""
    if not is_tar_name(str(tar["name"])):
        return 0, [], ["is no name of a shard: expected one like train-00000.tar; the file is not opened"]
    path = folder / tar["name"]
    try:
        places = read_tar_index(path.with_name(path.name + INDEX_SUFFIX))
    except MirasolError as error:
        return 0, [], [str(error)]
    if not path.is_file():
        return len(places), [key for key, _ in places], ["is missing"]
    wrong = [] if len(places) == tar["clips"] else [f"the index has {len(places)} clips, the list {tar['clips']}"]
    members, strangers = members_of(path)
    lost: list[str] = []
    if path.stat().st_size != tar["bytes"] or sha256_file(path) != tar["sha256"]:
        # Which clips suffer, so that one knows whether it matters.
        wrong.append(f"the bytes do not match the hash ({path.stat().st_size} bytes, {tar['bytes']} belong)")
        lost, told = _check_clips(path, places)
        wrong += told
    elif misplaced := _misplaced(places, members):
        lost, wrong = misplaced, [*wrong, f"the index does not fit the tar: {len(misplaced)} clip(s) lie elsewhere"]
    return len(places), lost, wrong + strangers


def _misplaced(places: Places, members: dict[str, tuple[int, int]]) -> list[str]:
    """Keys that the index has elsewhere than the tar, or more often than once."""
    seen: set[str] = set()
    wrong = []
    for key, files in places:
        lies = all(members.get(f"{key}.{kind}") == tuple(place) for kind, place in files.items())
        if key in seen or "json" not in files or not lies:
            wrong.append(key)
        seen.add(key)
    return wrong


def _check_clips(path: Path, places: Places) -> tuple[list[str], list[str]]:
    """Keys of the clips that are damaged, and in what."""
    lost, wrong = [], []
    with path.open("rb") as file:
        for key, files in places:
            contents = {}
            for kind, (offset, size) in files.items():
                file.seek(offset)
                contents[kind] = file.read(size)
            if bad := _damaged(key, contents):
                lost.append(key)
                wrong += [f"clip {key}: {kind} is damaged" for kind in bad]
    return lost, wrong


def _damaged(key: str, contents: dict[str, bytes]) -> list[str]:
    """The kinds of file of a clip that are not what was written."""
    try:
        facts = json.loads(contents["json"])
        if facts["key"] != key:
            return ["json"]
        return [
            kind
            for kind, data in contents.items()
            if kind != "json" and hashlib.sha256(data).hexdigest() != facts["sha256"][kind]
        ]
    except (ValueError, KeyError, TypeError):
        return ["json"]
