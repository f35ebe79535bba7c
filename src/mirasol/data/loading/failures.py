"""Clips that cannot be read while training: printed, listed, counted; too many of them are an error.

``damaged-RANK.jsonl`` next to the checkpoint has a line for each training sample with a replaced clip and for each
clip that the evaluations left out. A resumed run drops the lines of samples that it reads again, as in the curves.
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


@dataclass(frozen=True)
class Damage:
    """A damaged clip and its replacement."""

    sample: int | None  # training sample; None: its texts are lost, so no epoch has it, or it is of the val split
    key: str
    why: str
    instead: str = ""  # key of the replacement
    split: str = "train"


class Failures:
    """The damaged clips that one process of a training meets in a split, from sample ``start`` on.

    Args:
        folder: of ``damaged-RANK.jsonl``; ``None`` keeps no list.
        share: of the split's clips that may be damaged.
        start: training samples consumed before; lines of later ones are from an interrupted run.
        split: ``train``, or ``val``; open the list of ``train`` first.

    Raises:
        MirasolError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path | None, share: float, *, start: int = 0, rank: int = 0, world: int = 1, split: str = "train"
    ) -> None:
        self.share, self.split = share, split
        self.path = None if folder is None else folder / FILES.format(rank)
        kept: list[Damage] = []
        if folder is not None and self.path is not None:
            for other, path in _files(folder).items():
                if rank == 0 and other >= world:  # of an earlier run with more ranks
                    _write(path, _before(path, start))
            kept = _before(self.path, start)
            if split == "train":
                _write(self.path, kept)
        self.clips = {damage.key for damage in kept if damage.split == split}

    def record(self, found: Iterable[Damage], clips: int) -> None:
        """Write down damaged clips ``found`` in a split of ``clips`` clips.

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
                f"the split {self.split}: {shown} (the last: {last.why}). `mirasol data check` lists all damage and "
                "how to repair it"
            )


def met(folder: Path, samples: int, rank: int, world: int) -> list[dict[str, Any]]:
    """The damage that process ``rank`` met in training samples below ``samples``, each as plain JSON.

    The first process knows that of earlier runs with more processes, too.
    """
    ours = [path for other, path in _files(folder).items() if other == rank or (rank == 0 and other >= world)]
    return [dataclasses.asdict(damage) for path in ours for damage in _before(path, samples, unplaced=True)]


def report(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A summary of the damage that all processes ``met``; ``{}`` if none.

    Counts of damaged ``clips``, of ``replaced`` samples and of the clips of ``val`` that evaluations left out, if any;
    ``list`` has the first clips with their reasons.
    """
    lines = [Damage(**damage) for damage in found]
    val = {damage.key for damage in lines if damage.split == "val"}
    reasons = {damage.key: damage.why for damage in sorted(lines, key=lambda d: (d.key, d.why))}
    if not reasons:
        return {}
    replaced = {damage.sample for damage in lines if damage.sample is not None}
    listed = [{"clip": key, "why": why} for key, why in list(reasons.items())[:LISTED]]
    return {"clips": len(reasons), "replaced": len(replaced), "list": listed} | ({"val": len(val)} if val else {})


def _files(folder: Path) -> dict[int, Path]:
    """The lists by rank."""
    found = {path.stem.removeprefix("damaged-"): path for path in sorted(folder.glob(FILES.format("*")))}
    return {int(rank): path for rank, path in found.items() if rank.isdecimal()}


def _before(path: Path, start: int, *, unplaced: bool = False) -> list[Damage]:
    """The lines of samples below ``start`` and of evaluations before it, without a last line that a kill has cut."""
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
