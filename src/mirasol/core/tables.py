"""Reads the tables that users write: every fault becomes ``file:line``, the expected value, and the remedy."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mirasol.core.errors import MirasolError

SECONDS = "seconds, as 12.5 or as hours:minutes:seconds"


class Line(NamedTuple):
    """A row of a CSV."""

    number: int  # of its first line
    cells: dict[str, str]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        MirasolError: it cannot be read, or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except OSError as error:
        raise MirasolError(f"{path}: cannot be read: {error.strerror}") from error


def not_utf8(path: Path, error: UnicodeDecodeError) -> MirasolError:
    """The error for a file in another encoding."""
    return MirasolError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8")


def csv_rows(
    path: Path,
    lines: Iterable[str],
    check: Callable[[list[str]], None],
    wrong: list[str],
    *,
    header: Sequence[str] = (),
    mark: str = ",",
    comment: str = "",
) -> Iterator[Line]:
    """The rows of a CSV with a header, without empty lines.

    Args:
        path: for the errors.
        lines: of the file, opened with ``newline=""``.
        check: raises for a header that cannot be used.
        wrong: takes the rows with another number of columns than the header.
        header: of a file without one.
        mark: separates the columns.
        comment: skip lines that begin with it, and spaces after a comma.

    Raises:
        MirasolError: it is not CSV, or a column occurs twice.
    """
    names = list(header)
    reader = csv.reader(lines, strict=True, delimiter=mark, skipinitialspace=bool(comment))
    first, last = 1, 0
    try:
        for cells in reader:
            first, last = last + 1, reader.line_num
            if not cells or (comment and cells[0].startswith(comment)):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                _check_header(f"{path}:{first}", names, check)
            elif len(cells) != len(names):
                separators = "commas" if mark == "," else repr(mark)
                wrong.append(
                    f"{path}:{first}: {len(names)} columns in the header ({', '.join(names)}), {len(cells)} here: put "
                    f'texts with {separators} in quotes, "like{mark} this"'
                )
            else:
                yield Line(first, dict(zip(names, cells, strict=True)))
        if not names:
            check([])
    except csv.Error as error:
        raise MirasolError(f"{path}:{last + 1}: no CSV: {error}") from error


def _check_header(where: str, names: list[str], check: Callable[[list[str]], None]) -> None:
    check(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MirasolError(f"{where}: the column {', '.join(map(repr, twice))} occurs twice: remove one, or rename it")


def parse_json(text: str, *, unique: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        unique: refuse an object with a key that occurs twice.

    Raises:
        ValueError: it is not JSON that UTF-8 can hold; the message gives the reason.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique else None)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"holds half of a character, {half!r}: replace it by the whole character") from None
    except RecursionError as error:
        raise ValueError(f"not JSON: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the key {', '.join(map(repr, twice))} occurs twice: remove one")
    return found


def seconds_of(value: object) -> float | None:
    """Seconds, 0 or more, from a number or a text like ``12.5``, ``1:02`` or ``0:01:02``; ``None``: it is none."""
    if isinstance(value, bool):
        return None
    try:
        parts = [float(part) for part in str(value).split(":")]
    except ValueError:
        return None
    if len(parts) > 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
        return None
    return float(round(sum(part * 60**power for power, part in enumerate(reversed(parts))), 6))


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a file; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 -- Path.is_file raises for a name that is too long
