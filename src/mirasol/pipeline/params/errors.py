"""The problems of a params file, all in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirasol.core.errors import MirasolError

SEE = "docs/params.md lists every key and its values"


@dataclass(frozen=True, order=True)
class Problem:
    """One fault: its line (from 1), the dotted path of its key, and the remedy."""

    line: int
    path: str
    message: str


class ParamsError(MirasolError):
    """Every problem of one params file, one line each: ``file:line: dotted.path: message``."""

    def __init__(self, file: Path, problems: Iterable[Problem], see: str = SEE) -> None:
        self.file = file
        self.problems = sorted(problems)
        lines = [f"{file}:{p.line}: {p.path + ': ' if p.path else ''}{p.message}" for p in self.problems]
        count = f"{len(lines)} problem" + ("s" if len(lines) != 1 else "")
        super().__init__("\n".join([*lines, f"{count} in {file}; {see}"]))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``name`` probably means; ``None`` if none resembles it."""
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return close[0] if close else None


def show(value: object) -> str:
    """A value as an error quotes it: with its kind, at most one line."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    kind = {int: "integer", float: "number", str: "text"}
    known = next((words for cls, words in kind.items() if isinstance(value, cls)), type(value).__name__)
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({known})"
