"""Clips that cannot be read while training: told, listed, counted, and too many of them an error.

The loader (:mod:`mirasol.data.loading.loader`) decides which clip replaces a damaged one; the val split replaces none.
Here it is written down: ``damaged-RANK.jsonl`` beside the checkpoint has a line for each sample that was replaced and
for each clip that the evaluations left out. A resumed run drops the lines of samples that it sees again, as it does
with the curves.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error

FILES = "damaged-{}.jsonl"
LISTED = 20  # clips named in the report of a phase and in an error


class DamagedClip(MirasolError):
    """A clip of a shard cannot be read; ``key`` is its key, ``why`` the reason without its place."""

    def __init__(self, message: str, key: str = "", why: str = "") -> None:
        super().__init__(message)
        self.key, self.why = key, why

    def __reduce__(self) -> Any:  # else a loader process could not hand it over
        return type(self), (str(self), self.key, self.why)


@dataclass(frozen=True)
class Damage:
    """A damaged clip, the training sample that met it (``None``: its texts are lost, so it is in no epoch, or it is of
    the val split), and the key of the clip that was taken instead."""

    sample: int | None
    key: str
    why: str
    instead: str = ""
    split: str = "train"


class Failures:
    """What one process of a training has met of a split, from sample ``start`` on.

    Args:
        folder: where ``damaged-RANK.jsonl`` is kept; ``None`` keeps nothing.
        share: of the split's clips that may be damaged.
        start: training samples consumed before; lines of later ones are of a run that was interrupted.
        split: ``train``, or ``val``, whose list is opened after that of ``train``.

    Raises:
        MirasolError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        share: float,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        split: str = "train",
    ) -> None:
        self.share, self.split = share, split
        self.path = None if folder is None else folder / FILES.format(rank)
        kept: list[Damage] = []
        if folder is not None and self.path is not None:
            stale = [] if rank else [p for p in _files(folder) if _rank(p) >= world]  # of ranks that are no more
            for path in stale:
                _write(path, _before(path, start))
            kept = _before(self.path, start)
            if split == "train":
                _write(self.path, kept)
        self.clips = {damage.key for damage in kept if damage.split == split}

    def record(self, found: Iterable[Damage], clips: int) -> None:
        """Write down what was met in a split of ``clips`` clips.

        Raises:
            MirasolError: more than ``share`` of the clips are damaged, or the disk cannot be written.
        """
        found = [dataclasses.replace(damage, split=self.split) for damage in found]
        if self.split == "val":  # each evaluation meets the same clips
            found = [damage for damage in found if damage.key not in self.clips]
        if not found:
            return
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(_line(damage) for damage in found)
            except OSError as error:
                raise disk_error(error, self.path) or error from error
        for damage in found:
            if damage.key not in self.clips:
                self.clips.add(damage.key)
                what = f"taken instead: clip {damage.instead}" if damage.instead else "left out"
                print(f"clip {damage.key} is damaged: {damage.why}; {what}", file=sys.stderr)
        if len(self.clips) > self.share * clips:
            shown = ", ".join(sorted(self.clips)[:LISTED]) + (" …" if len(self.clips) > LISTED else "")
            last = found[-1]
            raise MirasolError(
                f"{len(self.clips)} of {clips} clips are damaged, more than training.max_damaged = {self.share:g} of "
                f"the split {self.split}: {shown} (the last: {last.why}). `mirasol data check` says what else is and "
                "how to mend it"
            )


def report(folder: Path, samples: int) -> dict[str, Any]:
    """What all processes met in training samples below ``samples``: ``{}`` if nothing, else ``clips``, the damaged
    ones; ``replaced``, samples that show another clip; ``val``, clips that evaluations left out, if there are any;
    and ``list``, the first of the clips with their reasons."""
    lines = [damage for path in _files(folder) for damage in _before(path, samples, unplaced=True)]
    val = {damage.key for damage in lines if damage.split == "val"}
    reasons = {damage.key: damage.why for damage in sorted(lines, key=lambda d: (d.key, d.why))}
    if not reasons:
        return {}
    replaced = {damage.sample for damage in lines if damage.sample is not None}
    listed = [{"clip": key, "why": why} for key, why in list(reasons.items())[:LISTED]]
    return {"clips": len(reasons), "replaced": len(replaced), "list": listed} | ({"val": len(val)} if val else {})


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(FILES.format("*")))


def _rank(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _before(path: Path, start: int, *, unplaced: bool = False) -> list[Damage]:
    """The lines of samples below ``start``, and what evaluations before it met; a last line that a kill has cut is of
    a later one."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            damage = Damage(**json.loads(line))
        except (ValueError, TypeError):
            continue
        unplaced_too = unplaced or (damage.split == "val" and start > 0)
        if unplaced_too if damage.sample is None else damage.sample < start:
            found.append(damage)
    return found


def _write(path: Path, kept: list[Damage]) -> None:
    if kept:
        with atomic_write(path, "w") as file:
            file.writelines(_line(damage) for damage in kept)
    else:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)


def _line(damage: Damage) -> str:
    return json.dumps(dataclasses.asdict(damage), sort_keys=True) + "\n"
