"""Reads annotation files: every row knows its place, and all wrong rows are reported at once."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mirasol.core.errors import MirasolError
from mirasol.core.tables import SECONDS, csv_rows, is_file, not_utf8, parse_json, read_text, seconds_of

T = TypeVar("T")


class RowError(Exception):
    """A row that cannot be used; the message has its place, the key, and the expected value."""


@dataclass(frozen=True)
class Record:
    """One row of an annotation file; ``where`` is ``file:line`` in a CSV, ``file[index]`` in a JSON list."""

    where: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A stripped text that is not empty; a number counts as its digits."""
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
        seconds = seconds_of(value)
        if seconds is None:
            raise self.wrong(key, SECONDS, value)
        return seconds

    def one_of(self, key: str, allowed: Mapping[str, T]) -> T:
        """The value in ``allowed`` for the text at ``key``."""
        value = self.text(key)
        if value not in allowed:
            shown = list(allowed) if len(allowed) <= 12 else [*list(allowed)[:10], f"… ({len(allowed)} in all)"]
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.wrong(key, f"one of {', '.join(shown)}", value, hint)
        return allowed[value]

    def wrong(self, key: str, expected: str, value: object, hint: str = "") -> RowError:
        """The error for the value at ``key``."""
        return RowError(f"{self.where}: {key}: expected {expected}, got {value!r}{hint}")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise RowError(f"{self.where}: no key {key!r}: there are {', '.join(map(str, self.values))}")
        return self.values[key]


@dataclass
class Annotations:
    """The folder of a set's annotation files, and the findings of reading them."""

    folder: Path
    wrong: list[str] = field(default_factory=list)  # rows that cannot be used, reported at the end
    notes: dict[str, Any] = field(default_factory=dict)  # facts for the summary
    used: set[str] = field(default_factory=set)  # names of the files that were read

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that exists."""
        for name in names:
            if is_file(self.folder / name):
                self.used.add(name)
                return self.folder / name
        return None

    def need(self, name: str) -> Path:
        """The file ``name``.

        Raises:
            MirasolError: it does not exist.
        """
        path = self.find(name)
        if path is None:
            raise MirasolError(f"{self.folder / name}: no such file: the set's annotations need it")
        return path

    def rows(self, records: Iterable[Record], make: Callable[[Record], T]) -> Iterator[T]:
        """``make`` of each record; a :class:`RowError` goes to ``wrong``."""
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
            columns: required in the file's header, in any order and among others.
            header: of a file without one.
            comment: skip lines that begin with it, and spaces after a comma.

        Raises:
            MirasolError: the file is not CSV in UTF-8, lacks a column, or has one twice.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                check = functools.partial(check_columns, path, columns=columns)
                for row in csv_rows(path, file, check, self.wrong, header=header, comment=comment):
                    yield Record(f"{path}:{row.number}", row.cells)
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from error

    def json(self, path: Path) -> Iterator[Record]:
        """The objects of a JSON list.

        Raises:
            MirasolError: the file is not a JSON list in UTF-8.
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
        MirasolError: it is not JSON in UTF-8.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise MirasolError(f"{path}: {error}") from error


def check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise :class:`MirasolError` if the header ``names`` of ``path`` lacks one of ``columns``."""
    lacking = []
    for column in columns:
        if column not in names:
            near = difflib.get_close_matches(column, names, 1)
            lacking.append(f"no column {column!r}" + (f", is it {near[0]!r}?" if near else ""))
    if lacking:
        raise MirasolError(f"{path}:1: {'; '.join(lacking)}. The header has: {', '.join(names) or 'nothing'}")
