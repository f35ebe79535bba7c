"""The curves of a phase: one JSON line per logged step, without times, so that equal runs give equal bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirasol.core.files import atomic_write, disk_error, write_json

CURVES = "curves.jsonl"
SPEED = "speed.jsonl"  # in a separate file, as no two runs agree on it
PLOTS = "plots"  # folder of the two tables that `dvc plots` draws: it reads no JSON lines, and pairs tables by row


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of ``path``, without a last line that a kill has cut."""
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class CurveFile:
    """A file of lines with their ``step``; a resumed run appends without gap or duplicate."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, step: int) -> None:
        """Keep the lines up to ``step``, that of the checkpoint, and drop later ones.

        Raises:
            MirasolError: the folder cannot be written.
        """
        kept = [line for line in read_lines(self.path) if line["step"] <= step]
        with atomic_write(self.path, "w") as file:
            file.writelines(_encode(line) for line in kept)

    def append(self, line: dict[str, Any], *, sync: bool) -> None:
        """Add one line; ``sync`` waits until it, and all before it, would survive a power cut.

        Raises:
            MirasolError: the disk is full.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_encode(line))
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.path) or error from error


def rounded(values: Any) -> Any:
    """Plain values with floats of nine digits, more than float32 has: sums over processes differ behind them."""
    if isinstance(values, Mapping):
        return {name: rounded(value) for name, value in values.items()}
    return float(f"{values:.9g}") if isinstance(values, float) else values


def write_plots(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Write ``plots/train.json`` and ``plots/val.json`` in ``folder``: rows with equal keys for `dvc plots`.

    Args:
        folder: the output of a phase.
        lines: those of its curves. Figures of a line go to the first table; of its evaluation the exact match of all
            answers and of each family goes to the second. ``None`` where a line lacks a figure.

    Raises:
        MirasolError: the folder cannot be written.
    """
    train = [{name: value for name, value in line.items() if not isinstance(value, Mapping)} for line in lines]
    val = [{"step": line["step"]} | _exact_match(line["val"]) for line in lines if "val" in line]
    for name, rows in (("train", train), ("val", val)):
        keys = sorted({key for row in rows for key in row})
        write_json(folder / PLOTS / f"{name}.json", [{key: row.get(key) for key in keys} for row in rows])


def _exact_match(val: Mapping[str, Any]) -> dict[str, Any]:
    families = {name: family["exact_match"] for name, family in val.get("families", {}).items()}
    return ({"all": val["exact_match"]} if "exact_match" in val else {}) | families


def _encode(line: dict[str, Any]) -> str:
    return json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n"
