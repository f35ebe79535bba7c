"""The file of labels: a CSV that `mirasol data import generic` reads, on disk after every label.

Columns: media, prompt, answers, group, split. Rows are in the order of labelling, so that undo works after a restart.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write, disk_error

# Of the clips, as the import splits few groups (a test compares them): 150 labels make a test of 30.
SHARES = {"train": 0.65, "val": 0.15, "test": 0.2}
RULES = {
    "name": "the file name without its last number: walk_007.mp4 belongs to walk",
    "folder": "the folder of a file",
    "file": "each file is its own recording",
}
FEWEST_GROUPS = 5  # with fewer, names like IMG_0001 and IMG_0002 would be one recording
LAST_NUMBER = re.compile(r"[\s_.-]*\d+$")
LONGEST_ANSWER = 200  # characters


@dataclass(frozen=True)
class Row:
    """One label: a row of the file."""

    media: str  # path below the folder, with forward slashes
    prompt: str
    answers: str  # one answer, or several separated by |
    group: str  # the source recording
    split: str  # one of SHARES


COLUMNS = [field.name for field in fields(Row)]


class Annotations:
    """The rows of a file, which this process alone may change.

    Raises:
        MirasolError: the file is in use by another `mirasol label`, cannot be read, or has wrong rows, all listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = contextlib.ExitStack()
        self._held.enter_context(_lock(path))
        try:
            self._read = _bytes(path)
            self.rows = parse(path, self._read) if self._read else []
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have the file."""
        self._held.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Replace the rows, whole or not at all; the file is on disk afterwards.

        Raises:
            MirasolError: another program changed the file, or the disk cannot be written; the rows stay.
        """
        if _bytes(self.path) != self._read:
            raise MirasolError(
                f"{self.path}: another program changed it while you were labelling: nothing was written; stop with "
                "Ctrl-C and start again to continue from the changed file"
            )
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        data = text.getvalue().encode()
        with atomic_write(self.path) as file:
            file.write(data)
        self._read, self.rows = data, list(rows)


def parse(path: Path, data: bytes) -> list[Row]:
    """The rows of the file's bytes.

    Raises:
        MirasolError: the bytes are no CSV in UTF-8 with these columns, or rows are wrong; each is listed.
    """
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        if sorted(reader.fieldnames or []) != sorted(COLUMNS):
            raise MirasolError(
                f"{path}:1: the columns are {', '.join(reader.fieldnames or [])}; `mirasol label` continues only a "
                f"file with {', '.join(COLUMNS)}: choose another file with --out"
            )
        lines = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise MirasolError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise MirasolError(f"{path}: no CSV: {error}") from error
    rows: dict[tuple[str, str], Row] = {}
    splits: dict[str, str] = {}
    wrong: list[str] = []
    for line, cells in lines:
        where = f"{path}:{line}"
        if None in cells or not all(isinstance(cell, str) and cell.strip() for cell in cells.values()):
            wrong.append(f"{where}: expected {len(COLUMNS)} texts, none of them empty")
            continue
        row = Row(**{name: cells[name].strip() for name in COLUMNS})
        if row.split not in SHARES:
            wrong.append(f"{where}: split {row.split!r} is not one of {', '.join(SHARES)}")
        elif splits.setdefault(row.group, row.split) != row.split:
            wrong.append(f"{where}: group {row.group!r} is also in the split {splits[row.group]}: choose one")
        if rows.setdefault((row.media, row.prompt), row) is not row:
            wrong.append(f"{where}: {row.media} has a label for {row.prompt!r} already")
    if wrong:
        raise MirasolError(listing(f"{len(wrong)} error(s) in {path}; fix them, or choose another file", wrong))
    return list(rows.values())


def clean_answer(text: str, known: Iterable[str]) -> str:
    """``text`` as an answer: single spaces, spelled as an equal one of ``known`` but for capitals.

    Raises:
        MirasolError: it is empty, too long, or holds ``|``, which separates answers.
    """
    answer = " ".join(text.split())
    if not answer or "|" in answer or len(answer) > LONGEST_ANSWER or not answer.isprintable():
        raise MirasolError(f"the answer {text[:40]!r}: expected 1 to {LONGEST_ANSWER} visible characters without |")
    return next((other for other in known if other.casefold() == answer.casefold()), answer)


def group_of(media: str, rule: str) -> str:
    """The source recording of a file by one of RULES."""
    path = PurePosixPath(media)
    if rule == "file":
        return media
    name = LAST_NUMBER.sub("", path.stem) if rule == "name" else ""
    return str(path.parent / name)


def choose_rule(media: Sequence[str], rows: Iterable[Row], asked: str = "") -> str:
    """The rule that groups ``media``: as ``asked``, else that of the rows, else by name if that makes groups.

    Raises:
        MirasolError: the rows were grouped by another rule than ``asked``.
    """
    rows = list(rows)
    fitting = [rule for rule in RULES if all(row.group == group_of(row.media, rule) for row in rows)]
    if asked and rows and asked not in fitting:
        raise MirasolError(
            f"--group-by {asked}: the labels so far are grouped by {' or '.join(fitting) or 'another rule'}: leave "
            "the option out, or begin another file with --out"
        )
    if asked:
        return asked
    counts = Counter(group_of(name, "name") for name in media)
    good = len(counts) >= FEWEST_GROUPS and max(counts.values()) <= len(media) / 2
    rule = "name" if good else "file"
    return rule if rule in fitting or not fitting else fitting[0]


def choose_splits(sizes: Mapping[str, int], known: Mapping[str, str]) -> dict[str, str]:
    """The split of every group: ``known`` stays, the others fill the quota, in an order that only names decide.

    Args:
        sizes: group -> its number of clips.
        known: group -> split, of earlier labels.
    """
    splits = dict(known)
    have = dict.fromkeys(SHARES, 0)
    for group, split in known.items():
        have[split] += sizes.get(group, 0)
    for group in sorted(sizes.keys() - known.keys(), key=mixed):
        splits[group] = neediest(have)
        have[splits[group]] += sizes[group]
    return splits


def neediest(have: Mapping[str, int]) -> str:
    """The split that is furthest from its share."""
    return min(have, key=lambda split: have[split] / SHARES[split])


def mixed(name: str) -> bytes:
    """A key that sorts names as if at random, equally on every machine."""
    return hashlib.sha256(name.encode()).digest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise MirasolError(f"{path}: cannot be read: {error.strerror}: choose another file with --out") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold ``.NAME.lock`` beside the file; the system lets go of it when the process ends in any way."""
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, path) or error from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise MirasolError(
                f"{path} is in use by another `mirasol label`: use its page, stop it with Ctrl-C, or choose another "
                "file with --out"
            ) from None
        if lock.exists() and os.fstat(handle).st_ino == lock.stat().st_ino:
            break
        os.close(handle)  # its holder removed it meanwhile
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)
