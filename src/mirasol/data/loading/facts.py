"""What a training must know of all clips of a split before it begins, made once on a machine for all its processes.

The JSON of a clip takes 70 us to read and check, minutes for millions of clips. So the first process that opens a split
with a cache reads them once, and writes keys, places, tasks, data sets and texts as flat arrays into one file, which
every process and each of its loader processes maps into memory. The file is named after `shards.json` and after size
and time of each tar: a tar that changes is read anew.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.shards.format import KINDS, DamagedClip, Entry

if TYPE_CHECKING:
    from mirasol.tokenizer import Tokenizer

LAYOUT = "facts-1"  # change it when the arrays change
FOLDER = "facts"  # in a cache
LOCK = "lock"
ALIGNED = 64  # bytes
ABSENT = -1
NOTHING = np.zeros(0, np.int64)
TAIL = 16  # bytes: where the notes begin, and their length

Arrays = dict[str, NDArray[Any]]


class Table:
    """Arrays by name, with ``notes`` (plain JSON); in memory, or mapped from the file that another process wrote."""

    def __init__(self, arrays: Arrays, notes: Mapping[str, Any], path: Path | None = None) -> None:
        self.arrays, self.notes, self.path = arrays, notes, path

    def __reduce__(self) -> Any:  # a loader process maps the file, too
        return (Table, (self.arrays, self.notes)) if self.path is None else (Table.open, (self.path,))

    @classmethod
    def open(cls, path: Path) -> Table:
        """Map the table in ``path``; raises ``OSError`` or ``ValueError`` if there is none or it is not whole."""
        memory = np.memmap(path, mode="r")
        start, length = (int(n) for n in memory[-TAIL:].view("<i8"))
        if start + length + TAIL != len(memory):
            raise ValueError(f"{path}: not a table")
        notes = json.loads(memory[start : start + length].tobytes())
        arrays = {}
        for name, (kind, shape, offset) in notes["arrays"].items():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            arrays[name] = np.asarray(memory[offset : offset + size]).view(kind).reshape(shape)
        return cls(arrays, notes["notes"], path)

    def write(self, path: Path) -> None:
        """Write the table to ``path``, whole or not at all."""
        places: dict[str, Any] = {}
        with atomic_write(path) as file:
            for name, values in self.arrays.items():
                file.write(b"\0" * (-file.tell() % ALIGNED))
                places[name] = (values.dtype.str, values.shape, file.tell())
                file.write(np.ascontiguousarray(values).data)
            start = file.tell()
            file.write(json.dumps({"arrays": places, "notes": self.notes}).encode())
            file.write(np.array([start, file.tell() - start], "<i8").tobytes())

    def digest(self) -> str:
        """A hash of everything in the table."""
        total = hashlib.sha256(json.dumps(self.notes, sort_keys=True).encode())
        for name, values in sorted(self.arrays.items()):
            total.update(name.encode() + np.ascontiguousarray(values).data)
        return total.hexdigest()


class Strings(Sequence[str]):
    """Strings in one array of bytes: number i from ``bounds[i]`` up to ``bounds[i + 1]``."""

    def __init__(self, table: Table, name: str) -> None:
        self.table, self.name = table, name
        self.data, self.bounds = (table.arrays.get(key, NOTHING) for key in (name, f"{name}_bounds"))

    def __reduce__(self) -> Any:
        return Strings, (self.table, self.name)

    def __len__(self) -> int:
        return max(0, len(self.bounds) - 1)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self.data[self.bounds[number] : self.bounds[number + 1]].tobytes().decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


class _Joined:
    """Collects strings for :class:`Strings`."""

    def __init__(self) -> None:
        self.data, self.bounds = bytearray(), array.array("q", [0])

    def add(self, text: str) -> None:
        self.data += text.encode()
        self.bounds.append(len(self.data))

    def arrays(self, name: str) -> Arrays:
        bounds = np.array(self.bounds, np.int64)
        return {name: np.frombuffer(bytes(self.data), np.uint8), f"{name}_bounds": bounds}


class Numbered(dict[Any, int]):
    """The number of each value, in the order of their first appearance."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self)
        return number


def places_of(clips: Iterable[tuple[int, Entry]]) -> Arrays:
    """Key, tar, places and hash of each clip, from the indexes of the tars."""
    keys, tars, places, hashes = _Joined(), array.array("i"), array.array("q"), bytearray()
    for tar, entry in clips:
        keys.add(entry.key)
        tars.append(tar)
        for kind in KINDS:
            places.extend(entry.places.get(kind, (ABSENT, ABSENT)))
        hashes += entry.json or bytes(32)
    return keys.arrays("keys") | {
        "tars": np.array(tars, np.int32),
        "places": np.array(places, np.int64).reshape(-1, len(KINDS), 2),
        "hashes": np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 32),
    }


class Places(Sequence[tuple[int, Entry]]):
    """Number of the tar and entry of each clip."""

    def __init__(self, table: Table) -> None:
        self.table, self.arrays, self.keys = table, table.arrays, Strings(table, "keys")

    def __reduce__(self) -> Any:
        return Places, (self.table,)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> tuple[int, Entry]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, Entry]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        pairs = zip(KINDS, self.arrays["places"][index].tolist(), strict=True)
        places = {kind: place for kind, place in pairs if place[0] != ABSENT}
        digest = self.arrays["hashes"][index].tobytes()
        return int(self.arrays["tars"][index]), Entry(self.keys[index], places, digest if any(digest) else b"")


def facts_of(count: int, meta: Callable[[int], dict[str, Any]]) -> Table:
    """The facts of ``count`` clips with the JSON ``meta``, and of their examples.

    Arrays: ``has`` [clips, 2] (picture, sound), ``bounds`` (examples of clip i: from ``bounds[i]`` up to
    ``bounds[i + 1]``), and of each example ``tasks``, ``sets``, ``families`` (numbers in the notes' lists), ``pairs``
    (number of prompt and first answer, -1 without an answer) and ``ids``. Notes: ``damaged`` lists number and reason
    of each clip whose JSON cannot be read.
    """
    has, bounds = np.zeros((count, 2), bool), np.zeros(count + 1, np.int64)
    tasks, sets, families, pairs = Numbered(), Numbered(), Numbered(), Numbered()
    of = {name: array.array("i") for name in ("tasks", "sets", "families", "pairs")}
    ids, prompts, answers, damaged = _Joined(), _Joined(), _Joined(), []
    for number in range(count):
        try:
            facts = meta(number)
        except DamagedClip as error:
            damaged.append([number, error.why])
            bounds[number + 1] = bounds[number]
            continue
        has[number] = facts["has_video"], facts["has_audio"]
        for row in facts["examples"]:
            pair = ABSENT
            if row["answers"]:
                known = len(pairs)
                pair = pairs[row["prompt"], row["answers"][0]]
                if pair == known:
                    prompts.add(row["prompt"])
                    answers.add(row["answers"][0])
            of["tasks"].append(tasks[row["task"]])
            of["sets"].append(sets[row.get("set", "")])
            of["families"].append(families[row["family"]])
            of["pairs"].append(pair)
            ids.add(row["id"])
        bounds[number + 1] = bounds[number] + len(facts["examples"])
    arrays: Arrays = {}
    arrays |= {"has": has, "bounds": bounds}
    arrays |= {name: np.array(values, np.int32) for name, values in of.items()}
    arrays |= ids.arrays("ids") | prompts.arrays("prompts") | answers.arrays("answers")
    return Table(arrays, {"tasks": [*tasks], "sets": [*sets], "families": [*families], "damaged": damaged})


def examples_of(facts: Table, tasks: Collection[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the examples of ``tasks``, and the clip of each."""
    wanted = [number for number, name in enumerate(facts.notes["tasks"]) if name in tasks]
    rows = np.flatnonzero(np.isin(facts.arrays["tasks"], wanted))
    return rows, np.searchsorted(facts.arrays["bounds"], rows, side="right") - 1


def tokens_of(facts: Table, tokenizer: Tokenizer) -> Table:
    """The tokens of each pair of prompt and first answer: ``tokens`` from ``bounds[i]`` up to ``bounds[i + 1]``.

    ``answers`` is where its answer begins.
    """
    tokens, bounds, begins = array.array("i"), array.array("q", [0]), array.array("i")
    for prompt, answer in zip(Strings(facts, "prompts"), Strings(facts, "answers"), strict=True):
        tokens.extend(tokenizer.text_ids(prompt, answer))
        bounds.append(len(tokens))
        begins.append(len(tokenizer.text_ids(prompt, None)))
    values = np.array(tokens, np.int32), np.array(bounds, np.int64), np.array(begins, np.int32)
    return Table(dict(zip(("tokens", "bounds", "answers"), values, strict=True)), {})


def kept(
    folder: Path, name: str, make: Callable[[], Table], stale: str, holds: Callable[[Table], bool] = lambda table: True
) -> Table:
    """The table ``name`` in ``folder``, which the first process that asks for it writes; without a disk in memory.

    ``stale``: pattern of names; other files of it are removed before the table is written. ``holds``: whether a table
    from before still counts.
    """
    path = folder / name
    with contextlib.suppress(OSError, ValueError, KeyError):
        if holds(table := Table.open(path)):
            return table
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder))
        except OSError:
            return make()
        with contextlib.suppress(OSError, ValueError, KeyError):  # another has written it meanwhile
            if holds(table := Table.open(path)):
                return table
        table = make()
        with contextlib.suppress(OSError, MirasolError):
            for other in {*folder.glob(stale)} - {path}:  # it is replaced: others may be about to map it
                other.unlink()
            table.write(path)
            return Table.open(path)
        return table


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
