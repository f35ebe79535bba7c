"""The tars of a set of shards as they are read: in the folder of the list, or behind a URL that the list names.

Behind a URL there are two ways. Whoever reads a whole split copies its tars to the local disk first, once, whole and
checked against their hashes; whoever wants a few clips asks for their bytes alone, by range.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error, sha256_file
from mirasol.core.progress import Progress
from mirasol.data.manifest import listing
from mirasol.data.remote import RemoteFolder, object_name
from mirasol.data.shards.build import FORMAT, INDEX, INDEX_SUFFIX
from mirasol.data.shards.format import is_tar_name
from mirasol.data.storage import check_folder

OPEN_TARS = 64
COPIED_AT_ONCE = 8
COPIES = "tars"  # folder of copies in a cache
LOCK = "lock"
DAMAGED = ".damaged"  # ends the name of a copy of what is damaged in the store too
AGAIN = "get it with `dvc checkout`, or make it again with `dvc repro -f shards`"
MEND = "remove what is left of it there, then make it again with `dvc repro -f shards`, which sends what is missing"
_HASH = re.compile(r"[0-9a-f]{64}")

Places = dict[str, list[int]]  # {kind: [offset, size]}


@dataclass(frozen=True)
class Entry:
    """A clip in the index of a tar; ``json`` is the SHA-256 of its JSON, empty in sets of earlier versions."""

    key: str
    places: Places
    json: bytes


class ShardReader:
    """The tars of one split, by number. Safe to use in several processes at once, forked or spawned."""

    def __init__(self, folder: Path, index: dict[str, Any], split: str, *, copies: Path | None, any_size: bool) -> None:
        """``copies``: where copies of tars behind a URL are kept; ``None`` reads them by range. ``any_size``: a tar
        that is damaged is a remark and no error.

        Raises:
            MirasolError: a tar is missing or damaged, the store cannot be reached, or the disk is full.
        """
        entries: list[dict[str, Any]] = index["splits"].get(split, [])
        self.names = [str(tar["name"]) for tar in entries]  # as they are told
        self._remote: RemoteFolder | None = None
        self._paths = [folder / name for name in self.names]
        self._indexes: list[list[Entry]] = []
        self._files: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._process = os.getpid()
        if not index.get("storage"):
            found = [path.stat().st_size if path.is_file() else None for path in self._paths]
            _check_sizes(self._paths, entries, found, any_size, AGAIN)
            self._indexes = [read_tar_index(path.with_name(path.name + INDEX_SUFFIX)) for path in self._paths]
            return
        remote = RemoteFolder(index["storage"])
        objects = [object_name(tar["name"], tar["sha256"]) for tar in entries]
        self._urls = [f"{remote.url}/{name}" for name in objects]
        kept = None if copies is None else copies / COPIES
        if kept is None:
            sizes = remote.sizes()
            self._remote, self._objects = remote, objects
            self._sizes = [sizes.get(name, 0) for name in objects]
            _check_sizes(self._urls, entries, [sizes.get(name) for name in objects], any_size, MEND)
            self._indexes = _remote_indexes(remote, entries)
        else:
            self._paths, self._indexes = _copies(remote, index, split, kept, any_size)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_files": collections.OrderedDict(), "_process": 0, "_indexes": []}

    def __del__(self) -> None:
        self.close()

    def clips(self) -> Iterator[tuple[int, Entry]]:
        """Number of the tar and entry of every clip, to be asked once, in the order of the manifest."""
        for number, entries in enumerate(self._indexes):
            for entry in entries:
                yield number, entry
        self._indexes = []

    def where(self, number: int) -> str:
        """Path or URL of a tar."""
        return self._urls[number] if self._remote is not None else str(self._paths[number])

    def read(self, number: int, offset: int, size: int) -> bytes:
        """A stretch of a tar; less where it ends before.

        Raises:
            OSError: the tar cannot be read.
            MirasolError: the store cannot be reached.
        """
        if self._remote is not None:
            size = max(0, min(size, self._sizes[number] - offset))
            return self._remote.read(self._objects[number], offset, size)
        return os.pread(self._open(number), size, offset)

    def close(self) -> None:
        """Close the tars; reading opens them again."""
        if getattr(self, "_process", None) == os.getpid():
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    def _open(self, number: int) -> int:
        if self._process != os.getpid():  # a forked process opens its own
            self._files, self._process = collections.OrderedDict(), os.getpid()
        if number in self._files:
            self._files.move_to_end(number)
            return self._files[number]
        file = os.open(self._paths[number], os.O_RDONLY | os.O_CLOEXEC)
        self._files[number] = file
        if len(self._files) > OPEN_TARS:
            os.close(self._files.popitem(last=False)[1])
        return file


def read_index(folder: Path) -> dict[str, Any]:
    """``shards.json`` of a finished set.

    Raises:
        MirasolError: it is missing (the set is unfinished), of another version, or names what lies elsewhere.
    """
    path = folder / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, expected {FORMAT!r}")
        tars = [tar for tars in index["splits"].values() for tar in tars]
        names = [str(tar["name"]) for tar in tars]
        storage = index.get("storage", "")
        unhashed = [n for n, tar in zip(names, tars, strict=True) if storage and not _has_hashes(tar)]
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file: the shards are not made yet: `dvc repro shards`") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(f"{path}: no shards of this version ({error}): make them with `dvc repro shards`") from error
    wrong = [
        f"{name!r} is no name of a shard, expected one like train-00000.tar" for name in names if not is_tar_name(name)
    ]
    wrong += [f"{name!r} stands without its hashes" for name in unhashed]
    if storage and (told := check_folder(str(storage))):
        wrong.append(f"storage: {told}")
    if wrong:
        title = f"{path}: it may have been written to reach other files, so nothing is read: `dvc repro -f shards`"
        raise MirasolError(listing(title, wrong, 10))
    return index


def read_tar_index(path: Path) -> list[Entry]:
    """Every clip in a tar.

    Raises:
        MirasolError: the file is missing or damaged.
    """
    try:
        return _parsed(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(f"{path}: no index of a tar ({error}): make it again with `dvc repro -f shards`") from error


def remote_index(remote: RemoteFolder, tar: dict[str, Any], kept: Path | None = None) -> list[Entry]:
    """As :func:`read_tar_index`, of a tar behind a URL, checked against its hash; with ``kept`` from the copy there."""
    name = _index_object(tar)
    try:
        if kept is not None and (kept / name).is_file():
            data = (kept / name).read_bytes()
            if hashlib.sha256(data).hexdigest() == tar["index_sha256"]:
                return _parsed(data)
        data = remote.read(name)
        if hashlib.sha256(data).hexdigest() != tar["index_sha256"]:
            raise ValueError("the bytes do not match their hash")
        if kept is not None:
            with atomic_write(kept / name) as file:
                file.write(data)
        return _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(f"{remote.url}/{name}: no index of a tar ({error}): {MEND}") from error


def _remote_indexes(remote: RemoteFolder, tars: list[dict[str, Any]], kept: Path | None = None) -> list[list[Entry]]:
    with ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        return list(pool.map(lambda tar: remote_index(remote, tar, kept), tars))


def _parsed(data: bytes) -> list[Entry]:
    index = json.loads(data)
    samples = index["samples"]
    hashes = [bytes.fromhex(text) for text in index.get("json_sha256", [""] * len(samples))]
    return [
        Entry(str(key), {str(kind): [int(a), int(b)] for kind, (a, b) in places.items()}, digest)
        for (key, places), digest in zip(samples, hashes, strict=True)
    ]


def _index_object(tar: dict[str, Any]) -> str:
    return object_name(tar["name"] + INDEX_SUFFIX, tar["index_sha256"])


def _has_hashes(tar: dict[str, Any]) -> bool:
    return all(_HASH.fullmatch(str(tar.get(name))) for name in ("sha256", "index_sha256"))


def _check_sizes(
    places: Iterable[object], entries: list[dict[str, Any]], found: list[int | None], any_size: bool, mend: str
) -> None:
    for place, tar, size in zip(places, entries, found, strict=True):
        if size == tar["bytes"]:
            continue
        state = "is missing" if size is None else f"has {size} bytes where {tar['bytes']} belong"
        if not any_size or size is None:
            raise MirasolError(f"{place} {state}: {mend}")
        print(f"{place} {state}: the clips that it has lost are damaged", file=sys.stderr)


def _copies(
    remote: RemoteFolder, index: dict[str, Any], split: str, folder: Path, any_size: bool
) -> tuple[list[Path], list[list[Entry]]]:
    """Local paths of the tars of ``split`` and their indexes; what is not there is copied, what is of other sets goes.

    All that writes to ``folder`` has its lock: who has it takes each file without a known name for a killed run's.
    """
    names = {s: [object_name(tar["name"], tar["sha256"]) for tar in tars] for s, tars in index["splits"].items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one training begin at once: the first copies
            ours = {LOCK, *(_index_object(tar) for tars in index["splits"].values() for tar in tars)}
            ours |= {name + end for named in names.values() for name in named for end in ("", DAMAGED)}
            for path in folder.iterdir():
                if path.name not in ours:  # of another set, or of a run that was killed
                    path.unlink()
            tars, wanted = index["splits"].get(split, []), names.get(split, [])
            both = zip(tars, wanted, strict=True)
            missing = [(tar, name) for tar, name in both if not _has_size(folder / name, tar["bytes"])]
            damaged = _copy(remote, missing, folder, any_size) if missing else set()
            paths = [folder / (name + DAMAGED if name in damaged else name) for name in wanted]
            return paths, _remote_indexes(remote, tars, folder)
    except OSError as error:
        raise disk_error(error, folder) or error from error


def _copy(remote: RemoteFolder, tars: list[tuple[dict[str, Any], str]], folder: Path, any_size: bool) -> set[str]:
    """Names of those that are damaged in the store."""
    damaged: set[str] = set()
    with Progress("copy", len(tars), "tars") as progress, ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        jobs = [pool.submit(_copy_one, remote, tar, name, folder) for tar, name in tars]
        try:
            for (_, name), job in zip(tars, jobs, strict=True):
                if not job.result():
                    told = f"{remote.url}/{name}: the bytes do not match their hash"
                    if not any_size:
                        raise MirasolError(f"{told}: {MEND}")
                    print(f"{told}: the clips that it has lost are damaged", file=sys.stderr)
                    damaged.add(name)
                progress.advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return damaged


def _copy_one(remote: RemoteFolder, tar: dict[str, Any], name: str, folder: Path) -> bool:
    """Whether the copy is what was written; a copy that is not may be the network's fault, once."""
    temporary = folder / f"{name}.tmp"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    for _ in range(2):
        remote.get(name, temporary)
        if sha256_file(temporary) == tar["sha256"]:
            temporary.replace(folder / name)
            return True
    temporary.replace(folder / (name + DAMAGED))
    return False


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
