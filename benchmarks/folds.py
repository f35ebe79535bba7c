"""Cross-validation over recordings, on the train and val rows of a set: settings are chosen without the test split."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from mirasol.data.manifest import Example, read_manifest, write_manifest


def recordings(example: Example) -> list[str]:
    """What a clip was cut from; joined media name picture and sound as `A+B.mp4`."""
    return PurePosixPath(example.media).stem.split("+")


def blocks(names: Iterable[str], folds: int) -> dict[str, int]:
    """Block of each recording: neighbouring numbers of one kind (the name without its number) share one."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        kinds.setdefault(re.sub(r"\d+$", "", name), []).append(name)
    return {name: index * folds // len(kind) for kind in kinds.values() for index, name in enumerate(kind)}


def fold(examples: Sequence[Example], number: int, folds: int) -> list[Example]:
    """The train and val rows as fold ``number`` splits them: a block for test, the next for val, the others for train.

    Rows whose picture and sound fall in different ones of these are left out, so that no recording is in two splits.
    """
    rows = [e for e in examples if e.split != "test"]
    block = blocks((name for e in rows for name in recordings(e)), folds)
    split = {number: "test", (number + 1) % folds: "val"}
    found = []
    for example in rows:
        splits = {split.get(block[name], "train") for name in recordings(example)}
        if len(splits) == 1:
            found.append(dataclasses.replace(example, split=splits.pop()))
    return found


def write_fold(data: Path, out: Path, number: int, folds: int) -> None:
    """Write fold ``number`` of the imported ``data`` to the folder ``out``; media stay where they are."""
    out.mkdir(parents=True, exist_ok=True)
    media = out / "media"
    if not media.is_symlink():
        media.symlink_to((data / "media").resolve())
    write_manifest(out / "manifest.jsonl", fold(read_manifest(data / "manifest.jsonl"), number, folds))
