"""A data folder with several data sets: `mirasol data import NAME --append` adds one to those that it holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import sha256_file
from mirasol.data.manifest import UNLABELLED, Example, read_manifest

SUMMARY = "import.json"
SHOWN = 10


def append_examples(
    out: Path, media: Path, added: Sequence[Example], name: str, elsewhere: Mapping[str, Path]
) -> tuple[list[Example], dict[str, dict[str, Any]]]:
    """The examples of ``out`` and behind them ``added``, each with the name of its data set.

    The summary in ``out`` names the data set of earlier rows that name none. Clips without texts that are already
    there come once.

    Args:
        media: the folder that the paths of ``added``, without their ``media/``, start from.
        name: data set of the rows of ``added`` that name none.
        elsewhere: the files that are not below ``media``, by their paths.

    Returns:
        All examples, and the earlier summaries by data set.

    Raises:
        MirasolError: ``out`` holds no data set with a name, or one of the same name; an id, a file or a group of
            ``added`` collides with an earlier one.
    """
    manifest, summary = out / "manifest.jsonl", out / SUMMARY
    if not manifest.is_file():
        raise MirasolError(f"{manifest}: no such file: import the first data set without --append")
    earlier = read_manifest(manifest)
    known: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    first = known.get("set")
    if first is None and any(not e.set for e in earlier):
        raise MirasolError(f"{manifest}: some rows name no data set, nor does {summary}: give each row a key `set`")
    earlier = [e if e.set else dataclasses.replace(e, set=str(first)) for e in earlier]
    added = [e if e.set else dataclasses.replace(e, set=name) for e in added]

    def differs(path: str) -> bool:
        inside = path.removeprefix("media/")
        return not _equal(out / path, elsewhere.get(inside, media / inside))

    known_clips = {e.id for e in earlier if e.task == UNLABELLED}
    added = [e for e in added if e.task != UNLABELLED or e.id not in known_clips or differs(e.media)]
    if twice := sorted({e.set for e in earlier} & {e.set for e in added}):
        raise MirasolError(
            f"{manifest} already holds the data set {', '.join(twice)}: choose another folder with --out, or give the "
            "rows another name, with a column `set` (webdataset: with --set)"
        )
    if (out / "media").is_symlink() and media.resolve() != (out / "media").resolve():
        raise MirasolError(
            f"{out / 'media'} is a link to other media than {media}: import both sets with --link copy or hardlink"
        )
    if collisions := _collisions(earlier, added, differs):
        title = f"{len(collisions)} collision(s) with the data sets that {manifest} holds; nothing was written"
        raise MirasolError(listing(title, collisions, SHOWN))
    return [*earlier, *added], known.get("sets") or {str(first): known}


def _collisions(earlier: Sequence[Example], added: Sequence[Example], differs: Callable[[str], bool]) -> list[str]:
    ids = {e.id: e.set for e in earlier}
    files: Mapping[str, str] = {e.media: e.set for e in earlier}
    groups = {e.group: e for e in earlier}
    found = [f"id {e.id!r} is also an id of {ids[e.id]}: give the rows other ids" for e in added if e.id in ids]
    for path in sorted({e.media for e in added} & set(files)):
        if differs(path):
            found.append(f"{path} is another file in {files[path]}: rename it")
    for group, split in sorted({(e.group, e.split) for e in added}):
        if group in groups and groups[group].split != split:
            other = groups[group]
            found.append(
                f"group {group!r} is in split {split!r} and in {other.split!r} of {other.set}: a source video belongs "
                "to one split, so leave it out of one of the sets"
            )
    return found


def _equal(one: Path, other: Path) -> bool:
    if not one.is_file() or not other.is_file():
        return not one.is_file()
    return one.stat().st_size == other.stat().st_size and sha256_file(one) == sha256_file(other)
