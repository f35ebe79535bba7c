"""A table of answers, `answers.csv`, that survives an interruption.

Rows are appended and reach the disk before the next are computed; a row that was cut off by a crash is removed when the
table is opened again. Next to it lies `answers.csv.json`, which names the bundle: answers of two models never mix.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write, disk_error, write_json
from mirasol.core.tables import csv_rows, read_text


class Row(NamedTuple):
    """One answer, as text; the fields are the columns."""

    file: str
    question: str
    answer: str
    score: str  # probability of the answer
    margin: str  # as in `mirasol.runtime.answer.Answer`
    seconds_used: str
    flag: str  # names of `mirasol.runtime.answer`, separated by "; ", or "unreadable: reason"


COLUMNS = Row._fields


class AnswersTable:
    """An open table; ``rows`` are those that it holds already."""

    def __init__(self, path: Path, handle: IO[bytes], rows: list[Row]) -> None:
        self.path, self.rows, self._handle = path, rows, handle

    def append(self, rows: Iterable[Row]) -> None:
        """Write ``rows`` through to the disk.

        Raises MirasolError if it is full.
        """
        rows = list(rows)
        try:
            self._handle.write(_text(rows))
            self._handle.flush()
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise disk_error(error, self.path) or error from error
        self.rows += rows


def summary_path(table: Path) -> Path:
    """The JSON next to a table."""
    return table.with_name(f"{table.name}.json")


@contextmanager
def open_table(path: Path, bundle: str, again: Callable[[Row], bool] = lambda _: False) -> Iterator[AnswersTable]:
    """Open or begin the table ``path`` of the bundle with the hash ``bundle``, without the rows to ask ``again``.

    Raises:
        MirasolError: it is another kind of file, of another bundle, in use by another process, or cannot be written;
            it stays as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab+")
    except OSError as error:
        raise disk_error(error, path) or error from error
    with handle:
        _lock(handle, path)
        handle.seek(0)
        data = handle.read()
        whole = data[: _end_of_last_record(data)]
        header = (",".join(COLUMNS) + "\n").encode()
        if whole or not header.startswith(data):  # else empty, or cut off within the header
            _check_origin(path, bundle)
            rows = _parse(path, whole)
        else:
            rows, whole = [], b""
        kept = [row for row in rows if not again(row)]
        if len(kept) < len(rows):
            with atomic_write(path) as file:
                file.write(_text([COLUMNS, *kept]))
            with open_table(path, bundle) as table:
                yield table
            return
        if len(whole) < len(data):
            os.truncate(handle.fileno(), len(whole))
        table = AnswersTable(path, handle, rows)
        if not whole:
            write_json(summary_path(path), {"bundle": bundle})
            handle.write(header)
            handle.flush()
        yield table


def _lock(handle: IO[bytes], path: Path) -> None:
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle.fileno()), path.stat()):  # else replaced since it was opened
            return
    raise MirasolError(f"{path}: another `mirasol predict` writes it: let it end, or choose another --out")


def _text(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _end_of_last_record(data: bytes) -> int:
    """The length up to the last line end outside of quotes."""
    end = at = 0
    quotes = 0
    for line in data.splitlines(keepends=True):
        at += len(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n") and quotes % 2 == 0:
            end = at
    return end


def _check_origin(path: Path, bundle: str) -> None:
    beside = summary_path(path)
    try:
        made_by = json.loads(beside.read_text(encoding="utf-8"))["bundle"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MirasolError(
            f"{path} exists, but no {beside.name} next to it names the bundle that made it: choose another --out, "
            "or remove it"
        ) from None
    if made_by != bundle:
        raise MirasolError(
            f"{path} holds answers of the bundle {made_by[:12]}…, this one is {bundle[:12]}…: choose another --out"
        )


def _parse(path: Path, data: bytes) -> list[Row]:
    lines = list(csv.reader(io.StringIO(data.decode(errors="replace"), newline="")))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise MirasolError(
            f"{path} is not a table of answers: its first line is not {','.join(COLUMNS)}. Choose another --out"
        )
    wrong = [f"row {n}: {len(line)} columns" for n, line in enumerate(lines[1:], 2) if len(line) != len(COLUMNS)]
    if wrong:
        raise MirasolError(listing(f"{path}: rows without {len(COLUMNS)} columns; remove them", wrong))
    return [Row(*line) for line in lines[1:]]


def read_questions(path: Path) -> list[tuple[str, str]]:
    """Pairs of file and question from a CSV with the columns file and question, in their order.

    Raises:
        MirasolError: columns are missing or rows are incomplete; the message lists all.
    """
    return [(row["file"], row["question"]) for row in _read(path, ("file", "question"))]


def read_files(path: Path) -> list[str]:
    """The column file of a CSV, see :func:`read_questions`."""
    return [row["file"] for row in _read(path, ("file",))]


def _read(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    def check(columns: list[str]) -> None:
        if lacking := [name for name in needed if name not in columns]:
            hint = "; separate columns by commas, not semicolons" if ";" in "".join(columns) else ""
            ask = " (or give the questions with --ask)" if lacking == ["question"] else ""
            raise MirasolError(
                f"{path}: no column {' and no column '.join(lacking)} in its first line, "
                f"{','.join(columns) or 'which is empty'}{hint}{ask}"
            )

    wrong: list[str] = []
    rows = list(csv_rows(path, io.StringIO(read_text(path), newline=""), check, wrong))
    wrong += [f"{path}:{row.number}: {name} is empty" for row in rows for name in needed if not row.cells[name].strip()]
    if wrong:
        raise MirasolError(listing(f"{path}: {len(wrong)} error(s)", wrong))
    return [row.cells for row in rows]
