"""Clips without texts: media that no annotation names, for `pretrain` to learn picture and sound from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import sha256_file
from mirasol.core.progress import Progress
from mirasol.data.manifest import UNLABELLED, Example, check_media
from mirasol.tasks.base.media_patterns import PICTURES, SOUNDS, MediaFolder

PLACE = "unlabelled"  # below data/media, of files from outside of the folder of the annotated media
SECONDS = 4.0  # of a clip, where no annotated one says how long clips are


@dataclass(frozen=True)
class Unlabelled:
    """The clips without texts of a folder."""

    examples: list[Example]
    elsewhere: dict[str, Path]  # path below data/media -> file, of those outside of the folder of the annotated media
    facts: dict[str, Any]  # for the summary of an import


def find_unlabelled(folder: Path, media: Path, labelled: Sequence[Example] = ()) -> Unlabelled:
    """Every media file below ``folder``, in clips of the length of the longest annotated one.

    Left out and counted are files that ``labelled`` names, equal copies of them, and unreadable files, which are
    listed with their reasons.

    Args:
        media: folder of the annotated media. Files of ``folder`` that lie below it keep their place.
        labelled: the annotated examples; their media are named ``media/...``.

    Raises:
        MirasolError: no file is left.
    """
    names = MediaFolder(folder, ()).names if folder.is_dir() else []
    if not names:
        raise MirasolError(
            f"--unlabelled {folder}: no media file below this folder, expected names that end in one of "
            f"{', '.join(PICTURES + SOUNDS)}"
        )
    inside = folder.resolve().is_relative_to(media.resolve())
    prefix = folder.resolve().relative_to(media.resolve()) if inside else Path(PLACE)
    annotated = {e.media.removeprefix("media/") for e in labelled}
    left = {(prefix / name).as_posix(): folder / name for name in names}
    new = {place: path for place, path in left.items() if place not in annotated}
    if not inside and len(new) < len(left):
        raise MirasolError(f"{media / PLACE}: annotated media lie where those of --unlabelled {folder} go: rename it")
    copies = _copies(new, [media / name for name in annotated])
    seconds, unreadable = _probe({place: path for place, path in new.items() if place not in copies})
    if not seconds:
        known = len(names) - len(unreadable)
        title = (
            f"--unlabelled {folder}: none of the {len(names)} media is left, {known} are annotated, others unreadable"
        )
        raise MirasolError(listing(title, unreadable, 10))
    length = _longest(labelled, media)
    examples = [one for place, lasts in seconds.items() for one in _clips(place, lasts, length)]
    facts = {
        "files": len(seconds),
        "clips": len(examples),
        "clip_seconds": length,
        "annotated": len(names) - len(seconds) - len(unreadable),
        "unreadable": unreadable,
    }
    return Unlabelled(examples, {} if inside else {place: new[place] for place in seconds}, facts)


def _copies(new: dict[str, Path], annotated: Sequence[Path]) -> set[str]:
    """Places of files that equal an annotated one: their pictures may be in the test split."""
    sizes: dict[int, list[Path]] = {}
    for path in annotated:
        sizes.setdefault(path.stat().st_size, []).append(path)
    hashes: dict[int, set[str]] = {}
    found = set()
    for place, path in new.items():
        size = path.stat().st_size
        if size in sizes:
            if size not in hashes:
                hashes[size] = {sha256_file(other) for other in sizes[size]}
            if sha256_file(path) in hashes[size]:
                found.add(place)
    return found


def _probe(files: dict[str, Path]) -> tuple[dict[str, float], list[str]]:
    """The seconds of each file, 0 where it states none, and the reasons why others cannot be used."""
    from mirasol.media.probe import probe_file  # PyAV takes a while to load

    seconds: dict[str, float] = {}
    unreadable = []
    with Progress("look into media", len(files), "files") as progress:
        for place, path in files.items():
            status = probe_file(path, upto=0.0)
            if wrong := check_media(f"media/{place}") or (None if status.info else status.reason):
                unreadable.append(wrong)
            elif status.info:
                seconds[place] = float(status.info.duration or 0.0)
            progress.advance()
    return seconds, unreadable


def _longest(labelled: Sequence[Example], media: Path) -> float:
    """The seconds of the longest annotated clip, by which the proposed settings go."""
    if not labelled:
        return SECONDS
    here = [dataclasses.replace(e, media=e.media.removeprefix("media/")) for e in labelled]
    from mirasol.data.probe import probe  # imports numpy, which the command line does without

    return probe(here, media).seconds.high or SECONDS


def _clips(place: str, seconds: float, length: float) -> Iterator[Example]:
    """The clips of a file: each of ``length`` seconds, the last of half to one and a half of it, to the end."""
    count = max(1, round(seconds / length))
    group = f"{UNLABELLED}:{place}"
    for number in range(count):
        yield Example(
            id=f"{group}#{number}",
            media=f"media/{place}",
            start=round(number * length, 3) if number else None,
            end=round((number + 1) * length, 3) if number < count - 1 else None,
            task=UNLABELLED,
            prompt="",
            answers=(),
            split="train",
            group=group,
        )
