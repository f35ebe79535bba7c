"""How the command line speaks: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def error(message: str) -> None:
    """An error for the user on stderr, red on a terminal."""
    text = f"error: {message}"
    print(f"\033[31m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def note(message: str) -> None:
    """What happens meanwhile, on stderr: stdout is for the result."""
    print(message, file=sys.stderr, flush=True)


def table(rows: Sequence[tuple[str, ...]], *, right: tuple[int, ...] = ()) -> None:
    """Rows in aligned columns on stdout; ``right`` are the columns that are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
