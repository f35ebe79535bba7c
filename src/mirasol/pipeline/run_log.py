"""The place of each stage in a run, and the time left in all, for the lines of its log."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.core.progress import clock
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.paths import RUNS

DURATIONS = RUNS / "durations.json"
"""Stage -> ``{"seconds", "clips"}`` of its last run here; ``clips`` are those of a phase."""

# Seconds on the built-in world, two cores, of the log of `make demo`; only their ratios count.
DEMO: Mapping[str, tuple[float, int | None]] = {
    "tokenizer": (6, None),
    "shards": (49, None),
    "pretrain": (105, 5_600),
    "audio_pretrain": (18, 960),
    "finetune": (512, 27_200),
    "evaluate": (37, None),
    "export": (38, None),
    "benchmark": (18, None),
}
OTHER = 5.0  # seconds of any other stage
ENOUGH = 0.05  # share of the work that a run must have done, or be doing, before its pace tells the rest
_LEFT = re.compile(r"\b(?:(\d+):)?(\d+):(\d\d) left\b")


class RunLog:
    """Where a run stands. Every stage ``begins`` and ``ends``; ``line`` is for its output.

    Args:
        root: the workspace.
        stages: names of the run's stages, in order.
        stale: those that will run.
    """

    def __init__(self, root: Path, stages: Sequence[str], stale: Collection[str]) -> None:
        self._root, self._stages = root, list(stages)
        self._clips = _clips(root)
        known = _durations(root)
        self._ours = set(stale) <= known.keys()  # else a mixture of two machines
        self._expected = {n: self._expect(n, known if self._ours else {}) for n in self._stages if n in stale}
        self._todo = dict(self._expected)
        self._spent = self._planned = 0.0
        self._began = time.monotonic()

    def place(self, name: str) -> str:
        """``3/9 pretrain``; the name alone if it is not a stage."""
        if name not in self._stages:
            return name
        return f"{self._stages.index(name) + 1}/{len(self._stages)} {name}"

    def begins(self, name: str) -> str:
        """Start the clock of a stage; returns the time left in all, empty if unknown."""
        self._began = time.monotonic()
        left = self._left(name, None)
        return "" if left is None else f"{clock(left)} left in all"

    def ends(self, name: str, *, ran: bool) -> str:
        """Count a stage as done and keep its duration if it ``ran``; returns that."""
        seconds = time.monotonic() - self._began
        expected = self._todo.pop(name, None)
        if ran and expected is not None:
            self._spent, self._planned = self._spent + seconds, self._planned + expected
            kept = _durations(self._root) | {name: {"seconds": round(seconds, 1), "clips": self._clips.get(name)}}
            with contextlib.suppress(OSError, MirasolError):  # only an estimate depends on it
                write_json(self._root / DURATIONS, kept)
        return clock(seconds)

    def line(self, name: str, text: str) -> str:
        """A line of the stage's output, without its label, and with the time left in all where it says its own."""
        whole = text.startswith(f"[{name}] ")  # else a part of the stage, which knows less than the stage's duration
        text = re.sub(r"^\[([\w ]+)\] ", "" if whole else r"\1: ", text)
        if (own := _LEFT.search(text)) is None:
            return text
        hours, minutes, seconds = (int(part or 0) for part in own.groups())
        left = self._left(name, 3600 * hours + 60 * minutes + seconds if whole else None)
        return text if left is None else f"{text[: own.end()]}, {clock(left)} in all{text[own.end() :]}"

    def _left(self, name: str, own: float | None) -> float | None:
        """Seconds left in all, if the stage ``name`` has ``own`` left; ``None`` where that would be a guess."""
        spent, planned, here = self._spent, self._planned, self._todo.get(name, 0.0)
        elapsed = time.monotonic() - self._began
        if own is not None:
            spent, planned = spent + elapsed + own, planned + here
        told = planned > 0 and planned >= ENOUGH * sum(self._expected.values())
        if not (told or self._ours):
            return None
        pace = spent / planned if told else 1.0
        mine = max(here * pace - elapsed, 0.0) if own is None else own
        return mine + pace * sum(seconds for other, seconds in self._todo.items() if other != name)

    def _expect(self, name: str, known: Mapping[str, Any]) -> float:
        entry = known.get(name)
        seconds, clips = (entry["seconds"], entry["clips"]) if entry else DEMO.get(name, (OTHER, None))
        ours = self._clips.get(name)
        return float(seconds * ours / clips if ours and clips else seconds)


def _clips(root: Path) -> dict[str, int]:
    """Clips that each phase presents; empty if params.yaml is not the pipeline's."""
    with contextlib.suppress(MirasolError):
        params = load_params(root / "params.yaml")
        phases = {name: getattr(params, name) for name in PHASES}
        return {name: phase.steps * phase.batch_size for name, phase in phases.items()}
    return {}


def _durations(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / DURATIONS).read_text(encoding="utf-8"))
        return {str(name): {"seconds": float(e["seconds"]), "clips": e["clips"]} for name, e in found.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
