"""Reading annotation files: every row knows where it stands, and every wrong row is told, all at once."""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mirasol.core.errors import MirasolError

T = TypeVar("T")


class RowError(Exception):
    """One row cannot be used; the text says where it stands, which key, and what was expected."""


@dataclass(frozen=True)
class Record:
    """One row of an annotation file; ``where`` is ``file:line`` of a CSV, ``file[index]`` of a JSON list."""

    where: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A text that is not empty, without the spaces around it; a number counts as its digits."""
        value = self._value(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "a text", value)
        return value.strip()

    def integer(self, key: str) -> int:
        """A whole number, 0 or more."""
        value = self._value(key)
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, "a whole number, 0 or more", value)
        return value

    def seconds(self, key: str) -> float:
        """Seconds, 0 or more, as a number or as hours:minutes:seconds."""
        value = self._value(key)
        try:
            parts = [float(part) for part in str(value).split(":")]
        except ValueError:
            parts = []
        total = sum(part * 60**power for power, part in enumerate(reversed(parts)))
        if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
            raise self.wrong(key, "seconds, as 12.5 or as hours:minutes:seconds", value)
        return float(round(total, 6))

    def one_of(self, key: str, allowed: Mapping[str, T]) -> T:
        """What ``allowed`` has for the text at ``key``."""
        value = self.text(key)
        if value not in allowed:
            shown = list(allowed) if len(allowed) <= 12 else [*list(allowed)[:10], f"… ({len(allowed)} in all)"]
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.wrong(key, f"one of {', '.join(shown)}", value, hint)
        return allowed[value]

    def wrong(self, key: str, expected: str, value: object, hint: str = "") -> RowError:
        """The error that says what stands at ``key``."""
        return RowError(f"{self.where}: {key}: expected {expected}, got {value!r}{hint}")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise RowError(f"{self.where}: no key {key!r}: there are {', '.join(map(str, self.values))}")
        return self.values[key]


@dataclass
class Annotations:
    """The folder of a set's annotation files, and what is found out while they are read."""

    folder: Path
    wrong: list[str] = field(default_factory=list)  # rows that cannot be used, told at the end
    notes: dict[str, Any] = field(default_factory=dict)  # facts for the summary
    used: set[str] = field(default_factory=set)  # names of the files that were read

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that is there."""
        for name in names:
            if (self.folder / name).is_file():
                self.used.add(name)
                return self.folder / name
        return None

    def need(self, name: str) -> Path:
        """The file ``name``.

        Raises:
            MirasolError: it is not there.
        """
        path = self.find(name)
        if path is None:
            raise MirasolError(f"{self.folder / name}: no such file: the set's annotations need it")
        return path

    def rows(self, records: Iterable[Record], make: Callable[[Record], T]) -> Iterator[T]:
        """What ``make`` makes of each record; those it refuses with :class:`RowError` are kept in ``wrong``."""
        for record in records:
            try:
                yield make(record)
            except RowError as error:
                self.wrong.append(str(error))

    def csv(
        self, path: Path, columns: Sequence[str] = (), *, header: Sequence[str] = (), comment: str = ""
    ) -> Iterator[Record]:
        """The rows of a CSV file in UTF-8.

        Args:
            columns: must stand in the file's header; their order is free, and there may be others.
            header: of a file that has none.
            comment: lines that begin with it are left out, as are spaces after a comma.

        Raises:
            MirasolError: the file is no CSV in UTF-8, or lacks a column.
        """
        names = list(header)
        first, last = 1, 0
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True, skipinitialspace=bool(comment))
                for cells in reader:
                    first, last = last + 1, reader.line_num
                    if not cells or (comment and cells[0].startswith(comment)):
                        continue
                    if not names:
                        names = [cell.strip() for cell in cells]
                        check_columns(path, names, columns)
                    elif len(cells) != len(names):
                        self.wrong.append(
                            f"{path}:{first}: expected {len(names)} columns ({', '.join(names)}), got {len(cells)}"
                        )
                    else:
                        yield Record(f"{path}:{first}", dict(zip(names, cells, strict=True)))
                if not names:
                    check_columns(path, names, columns)
        except csv.Error as error:
            raise MirasolError(f"{path}:{last + 1}: no CSV: {error}") from error
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from error

    def json(self, path: Path) -> Iterator[Record]:
        """The objects of a JSON file that is a list of them.

        Raises:
            MirasolError: the file is no JSON list in UTF-8.
        """
        rows = read_json(path)
        if not isinstance(rows, list):
            raise MirasolError(f"{path}: expected a list of objects, got {type(rows).__name__}")
        for index, row in enumerate(rows):
            if isinstance(row, dict):
                yield Record(f"{path}[{index}]", row)
            else:
                self.wrong.append(f"{path}[{index}]: expected an object, got {row!r}")


def read_json(path: Path) -> Any:
    """The value of a JSON file in UTF-8.

    Raises:
        MirasolError: it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except (ValueError, RecursionError) as error:
        raise MirasolError(f"{path}: not JSON: {error}") from error


def check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise :class:`MirasolError` if the header ``names`` of ``path`` lacks one of ``columns``."""
    lacking = []
    for column in columns:
        if column not in names:
            near = difflib.get_close_matches(column, names, 1)
            lacking.append(f"no column {column!r}" + (f", is it {near[0]!r}?" if near else ""))
    if lacking:
        raise MirasolError(f"{path}:1: {'; '.join(lacking)}. The header has: {', '.join(names) or 'nothing'}")


def not_utf8(path: Path, error: UnicodeDecodeError) -> MirasolError:
    """The error for a file in another encoding."""
    return MirasolError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8")
