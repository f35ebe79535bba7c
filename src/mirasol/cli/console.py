"""Output of the command line: results on stdout, everything else on stderr."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar, get_type_hints

import typer

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="print the result as one JSON object")]
Colour = Literal["bold", "red", "green", "yellow"]
CODES: dict[Colour, int] = {"bold": 1, "red": 31, "green": 32, "yellow": 33}


def takes(kind: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Make a command of a function of one object: the fields of dataclass ``kind`` are its arguments and options."""

    def declare(function: Callable[[T], None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            function(kind(**given))

        hints = get_type_hints(kind, include_extras=True)
        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, kind.__module__
        command.__annotations__ = hints
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                    annotation=hints[field.name],
                )
                for field in dataclasses.fields(kind)  # type: ignore[arg-type]
            ]
        )
        return command

    return declare


def painted(text: str, colour: Colour, stream: TextIO | None = None) -> str:
    """``text`` in a colour if ``stream`` (stdout by default) is a terminal and NO_COLOR is not set."""
    terminal = (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{CODES[colour]}m{text}\033[0m" if terminal else text


def error(message: str) -> None:
    """An error for the user on stderr, red on a terminal."""
    print(painted(f"error: {message}", "red", sys.stderr), file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Progress and remarks, on stderr: stdout is for the result."""
    print(message, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_json(value: Any) -> str:
    """``value`` as `--json` prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def print_json(value: Any) -> None:
    """The result of a command with `--json`, on stdout."""
    print(to_json(value))


def print_paths(paths: Sequence[Path], as_json: bool) -> None:
    """The files that a command has written: one a line, or as ``{"files": […]}``."""
    if as_json:
        print_json({"files": [str(path) for path in paths]})
    else:
        print("\n".join(map(str, paths)))


def table(rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...] = ()) -> None:
    """Rows in aligned columns on stdout; columns ``right`` are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
