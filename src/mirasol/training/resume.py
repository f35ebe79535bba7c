"""Where a run begins: the checkpoints that it keeps, and the decision to resume one, to refuse, or to start anew."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.training.best import FOLDER as BEST
from mirasol.training.checkpoint import Facts, differences, read_facts
from mirasol.training.config import ANSWER, RESUME, START
from mirasol.training.curves import CURVES, SPEED
from mirasol.training.ranks import Ranks
from mirasol.training.shards import folders_of
from mirasol.training.transfer import UNPUBLISHED, fetch_checkpoint, tidy

FOLDER = "checkpoints"  # in the folder of a run: `step-<n>.ckpt`, whole or not there
BEFORE = "before"  # in the same: the unfinished run that another took the place of
# Differences with which the tensors of a checkpoint, or their optimiser's, do not fit; but for the second.
PHASE = ("optimizer", "trained", "weight_decay", "ema", "keep")
UNFIT = ("settings.model.", *(f"settings.phase.{name} " for name in PHASE))
FIT = ("settings.model.dropout ",)
UNREADABLE = ".unreadable"  # suffix of a checkpoint that was skipped, until its run ends or makes way
NAME = re.compile(r"step-(\d+)\.ckpt")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a run begins."""

    step: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)  # for the user
    anyway: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # `step` and `changed` of each


class Checkpoints:
    """The checkpoints of a run in its folder: the last ``keep`` stay, and multiples of ``every`` steps (0: none)."""

    def __init__(self, runs: Path, keep: int, every: int = 0) -> None:
        self.runs, self.folder, self.keep, self.every = runs, runs / FOLDER, keep, every

    def path(self, step: int) -> Path:
        """The checkpoint of ``step``."""
        return self.folder / f"step-{step}.ckpt"

    def steps(self) -> list[int]:
        """The steps with a checkpoint, the last first."""
        names = (NAME.fullmatch(path.name) for path in self.folder.glob("*.ckpt"))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def staying(self, steps: Iterable[int]) -> list[int]:
        """Those of ``steps`` whose checkpoints stay, the last first."""
        ordered = sorted(steps, reverse=True)
        return ordered[: self.keep] + [step for step in ordered[self.keep :] if self.every and step % self.every == 0]

    def tidy(self, *, finished: bool = False) -> None:
        """Remove the others, and what a kill left of unfinished writes; one process calls it.

        Unreadable and unpublished ones stay until the run is ``finished``: they may tell why.
        """
        steps = self.steps()
        staying = self.staying(steps)
        for step in set(steps) - {*staying}:
            self.path(step).unlink(missing_ok=True)
        tidy(self.runs, staying, self.every)
        rows = {folders_of(self.path(step)) for step in staying}
        for other in self.folder.iterdir():
            if other.is_dir() and other not in rows:
                shutil.rmtree(other, ignore_errors=True)
            elif other.name.endswith(".tmp") or (finished and other.suffix in (UNREADABLE, UNPUBLISHED)):
                other.unlink(missing_ok=True)

    def origin(self, name: str, made_by: dict[str, Any]) -> Origin:
        """Where run ``name`` of fingerprint ``made_by`` begins; moves the checkpoints of another run aside.

        Raises:
            MirasolError: they belong to an unfinished run of another fingerprint, and the variable
                ``MIRASOL_CHECKPOINT`` does not say what to do, or they do not fit. Nothing is changed then.
        """
        answer = chosen()
        notes: list[str] = []
        for step in self.steps():
            path = self.path(step)
            try:
                facts = read_facts(path)
            except MirasolError as error:
                notes.append(f"skips {path}, which cannot be read ({error})")
                continue
            changed = differences(facts.made_by, made_by)
            if changed and not _finished(facts):
                if answer is None:
                    raise self._refusal(name, path, facts, changed)
                if answer == RESUME:
                    unfit = [text for text in changed if text.startswith(UNFIT) and not text.startswith(FIT)]
                    if facts.step >= steps_of(made_by):
                        unfit.append(f"it is of step {facts.step}, the run ends at {steps_of(made_by):g}")
                    if unfit:
                        raise MirasolError(f"{path} does not fit this run, so --{START} alone can be: {_short(unfit)}")
                    self._remove_unreadable(step)
                    notes.append(f"goes on from {path} of another run: {_short(changed)}")
                    return Origin(step, notes, [*facts.anyway, {"step": step, "changed": changed}])
            if not changed:
                self._remove_unreadable(step)
                return Origin(step, notes, facts.anyway)
            notes.append(f"starts from step 0: {path} belongs to another run: {_short(changed)}")
            break
        return Origin(0, notes + self._set_aside())

    def fault(self, origin: Origin, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
        """Why this process cannot begin at ``origin``, which the first process decided; empty if it can.

        Args:
            theirs, ours: the fingerprints of the first process and of this one.
        """
        changed = differences(theirs, ours)
        if changed:
            return f"this process runs something else than the first one: {_short(changed)}; start the same on all"
        if not origin.step:
            return ""
        path = self.path(origin.step).resolve()
        advice = "put the project on a file system that all processes share, or set `storage` in cluster.yaml"
        try:
            found = read_facts(path).step
        except MirasolError as error:
            return f"the run resumes at step {origin.step}, but {path} cannot be read here ({error}): {advice}"
        return "" if found == origin.step else f"{path} is of step {found}, not {origin.step}: {advice}"

    def _refusal(self, name: str, path: Path, facts: Facts, changed: list[str]) -> MirasolError:
        return MirasolError(
            f"{path}: step {facts.step} of an unfinished run that differs from this one: {_short(changed)}. Nothing "
            f"was changed. Undo the difference to resume it, or choose: `mirasol stage {name} --{RESUME}` goes on "
            f"from it, `mirasol stage {name} --{START}` begins at step 0 and keeps it in {self.runs / BEFORE}; "
            f"under `dvc repro` and flows {ANSWER}={RESUME} or {ANSWER}={START} in the environment does the same"
        )

    def _set_aside(self) -> list[str]:
        """Move a run aside, in place of the one that was moved before."""
        if not self.steps():
            return []
        before = self.runs / BEFORE
        note = f"the run from before is in {before}" + (", in place of an earlier one" if before.exists() else "")
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir(parents=True)
        for path in self.folder.glob(f"*{UNREADABLE}"):
            path.unlink()
        for name in (FOLDER, BEST, CURVES, SPEED):
            with contextlib.suppress(FileNotFoundError):
                (self.runs / name).rename(before / name)
        return [note]

    def _remove_unreadable(self, step: int) -> None:
        """Checkpoints after ``step`` cannot be read: they would count as the last ones."""
        for later in self.steps():
            if later > step:
                self.path(later).replace(self.path(later).with_suffix(UNREADABLE))


def begin(ranks: Ranks, checkpoints: Checkpoints, name: str, made_by: dict[str, Any]) -> Origin:
    """Where run ``name`` begins: the first process decides, the others agree or all stop with one error.

    Raises:
        MirasolError: as :meth:`Checkpoints.origin`, in all processes; or one of them lacks the checkpoint.
    """

    def decide() -> dict[str, Any]:
        return {"origin": dataclasses.asdict(checkpoints.origin(name, made_by)), "made_by": made_by}

    fetch_checkpoint(ranks, checkpoints.runs)
    found = ranks.agree("origin", decide)
    origin = Origin(**found["origin"])
    ranks.check("ready", checkpoints.fault(origin, found["made_by"], made_by) if ranks.rank else "")
    return origin


def chosen() -> str | None:
    """The answer that the environment gives to a refusal.

    Raises:
        MirasolError: it is none.
    """
    answer = os.environ.get(ANSWER) or None
    if answer not in (None, RESUME, START):
        raise MirasolError(f"{ANSWER} is {answer!r}, expected {RESUME} or {START}")
    return answer


def _finished(facts: Facts) -> bool:
    return facts.finished or facts.step == steps_of(facts.made_by)


def steps_of(made_by: dict[str, Any]) -> float:
    """The steps of the run that a fingerprint describes; without end if it does not say."""
    return float(made_by.get("settings", {}).get("phase", {}).get("steps", "inf"))


def _short(changed: list[str]) -> str:
    return "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
