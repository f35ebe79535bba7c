"""Reading the tars of shards: in the folder of ``shards.json``, or behind the URL that it names.

To read a whole split from a URL, copy its tars to the local disk first, whole and checked against their hashes. To
read a few clips, ask for their bytes alone, by range.
"""

from __future__ import annotations

import collections
import fcntl
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error, sha256_file
from mirasol.data.shards.format import INDEX_SUFFIX, Entry, object_name, parse_tar_index, read_tar_index

if TYPE_CHECKING:
    from mirasol.data.storage import RemoteFolder

OPEN_TARS = 64
COPIED_AT_ONCE = 8
COPIES = "tars"  # folder of copies in a cache
LOCK = "lock"
DAMAGED = ".damaged"  # suffix of a copy whose original in the store is damaged too
RESTORE = "get it with `dvc checkout`, or make it again with `dvc repro -f shards`"
RESEND = "remove the rest of it there, then make it again with `dvc repro -f shards`, which sends missing files"


class ShardReader:
    """The tars of one split, by number. Safe to use in several processes at once, forked or spawned."""

    def __init__(self, folder: Path, index: dict[str, Any], split: str, *, copies: Path | None, any_size: bool) -> None:
        """Open the tars of ``split``.

        Args:
            copies: folder for copies of tars behind a URL; ``None`` reads them by range.
            any_size: warn about a damaged tar instead of refusing it.

        Raises:
            MirasolError: a tar is missing or damaged, the store cannot be reached, or the disk is full.
        """
        entries: list[dict[str, Any]] = index["splits"].get(split, [])
        self.names = [str(tar["name"]) for tar in entries]
        self._remote: RemoteFolder | None = None
        self._paths = [folder / name for name in self.names]
        self._files: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._process = os.getpid()
        self._read_indexes: Callable[[], Iterable[list[Entry]]] | None
        if not index.get("storage"):
            found = [path.stat().st_size if path.is_file() else None for path in self._paths]
            _check_sizes(self._paths, entries, found, any_size, RESTORE)
            indexes = [path.with_name(path.name + INDEX_SUFFIX) for path in self._paths]
            self._read_indexes = functools.partial(map, read_tar_index, indexes)
            return
        from mirasol.data.storage import RemoteFolder  # sets on the local disk do without

        remote = RemoteFolder(index["storage"])
        objects = [object_name(tar["name"], tar["sha256"]) for tar in entries]
        self._urls = [f"{remote.url}/{name}" for name in objects]
        if copies is not None:
            self._paths = _copies(remote, index, split, copies / COPIES, any_size)
            self._read_indexes = functools.partial(_remote_indexes, remote, entries, copies / COPIES)
            return
        sizes = remote.sizes()
        self._remote, self._objects = remote, objects
        self._sizes = [sizes.get(name, 0) for name in objects]
        _check_sizes(self._urls, entries, [sizes.get(name) for name in objects], any_size, RESEND)
        self._read_indexes = functools.partial(_remote_indexes, remote, entries)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_files": collections.OrderedDict(), "_process": 0, "_read_indexes": None}

    def __del__(self) -> None:
        self.close()

    def clips(self) -> Iterator[tuple[int, Entry]]:
        """Number of the tar and entry of every clip, in the order of the manifest; not in a loader process.

        Raises:
            MirasolError: an index is missing or damaged, or the store cannot be reached.
        """
        assert self._read_indexes is not None
        yield from ((number, entry) for number, entries in enumerate(self._read_indexes()) for entry in entries)

    def state(self) -> list[list[Any]]:
        """Name, size, time and inode of each tar on the local disk: another state may hold other clips."""
        found = [(path, path.stat()) for path in self._paths]
        return [[path.name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for path, stat in found]

    def where(self, number: int) -> str:
        """Path or URL of a tar."""
        return self._urls[number] if self._remote is not None else str(self._paths[number])

    def read(self, number: int, offset: int, size: int) -> bytes:
        """A stretch of a tar, shorter where the tar ends.

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


def remote_index(remote: RemoteFolder, tar: dict[str, Any], kept: Path | None = None) -> list[Entry]:
    """As :func:`read_tar_index`, of a tar behind a URL, checked against its hash; folder ``kept`` keeps a copy."""
    name = _index_object(tar)
    copy = None if kept is None else kept / name
    try:
        data = copy.read_bytes() if copy is not None and copy.is_file() else b""
        if hashlib.sha256(data).hexdigest() != tar["index_sha256"]:
            data = remote.read(name)
            if hashlib.sha256(data).hexdigest() != tar["index_sha256"]:
                raise ValueError("the bytes do not match their hash")
            if copy is not None:
                with atomic_write(copy) as file:
                    file.write(data)
        return parse_tar_index(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(f"{remote.url}/{name}: not the index of a tar ({error}): {RESEND}") from error


def _remote_indexes(remote: RemoteFolder, tars: list[dict[str, Any]], kept: Path | None = None) -> list[list[Entry]]:
    with ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        return list(pool.map(lambda tar: remote_index(remote, tar, kept), tars))


def _index_object(tar: dict[str, Any]) -> str:
    return object_name(tar["name"] + INDEX_SUFFIX, tar["index_sha256"])


def _check_sizes(
    places: Iterable[object], entries: list[dict[str, Any]], found: list[int | None], any_size: bool, repair: str
) -> None:
    for place, tar, size in zip(places, entries, found, strict=True):
        if size == tar["bytes"]:
            continue
        state = "is missing" if size is None else f"has {size} bytes, expected {tar['bytes']}"
        _damaged(f"{place} {state}", any_size and size is not None, repair)


def _damaged(what: str, allowed: bool, repair: str) -> None:
    """Warn about a damaged tar, or refuse it."""
    if not allowed:
        raise MirasolError(f"{what}: {repair}")
    print(f"{what}: its lost clips are damaged", file=sys.stderr)


def _copies(remote: RemoteFolder, index: dict[str, Any], split: str, folder: Path, any_size: bool) -> list[Path]:
    """Local paths of the tars of ``split``: copies missing tars and removes those of other shards.

    Every writer to ``folder`` holds its lock, so an unknown file in it is the rest of a killed run.
    """
    names = {s: [object_name(tar["name"], tar["sha256"]) for tar in tars] for s, tars in index["splits"].items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one training begin at once: the first copies
            ours = {LOCK, *(_index_object(tar) for tars in index["splits"].values() for tar in tars)}
            ours |= {name + end for named in names.values() for name in named for end in ("", DAMAGED)}
            for path in folder.iterdir():
                if path.name not in ours:
                    path.unlink()
            tars, wanted = index["splits"].get(split, []), names.get(split, [])
            sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
            missing = [(t, name) for t, name in zip(tars, wanted, strict=True) if sizes.get(name) != t["bytes"]]
            damaged = _copy(remote, missing, folder, any_size) if missing else set()
            if not all((folder / _index_object(tar)).is_file() for tar in tars):
                _remote_indexes(remote, tars, folder)  # later readers hold no lock, so they should find the copies
            return [folder / (name + DAMAGED if name in damaged else name) for name in wanted]
    except OSError as error:
        raise disk_error(error, folder) or error from error


def _copy(remote: RemoteFolder, tars: list[tuple[dict[str, Any], str]], folder: Path, any_size: bool) -> set[str]:
    """Names of those that are damaged in the store."""
    from mirasol.core.progress import Progress

    damaged: set[str] = set()
    with Progress("copy", len(tars), "tars") as progress, ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        jobs = [pool.submit(_copy_one, remote, tar, name, folder) for tar, name in tars]
        try:
            for (_, name), job in zip(tars, jobs, strict=True):
                if not job.result():
                    _damaged(f"{remote.url}/{name}: the bytes do not match their hash", any_size, RESEND)
                    damaged.add(name)
                progress.advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return damaged


def _copy_one(remote: RemoteFolder, tar: dict[str, Any], name: str, folder: Path) -> bool:
    """Whether the copy matches its hash; a second try, for an error of the network."""
    temporary = folder / f"{name}.tmp"
    temporary.unlink(missing_ok=True)
    for _ in range(2):
        remote.get(name, temporary)
        if sha256_file(temporary) == tar["sha256"]:
            temporary.replace(folder / name)
            return True
    temporary.replace(folder / (name + DAMAGED))
    return False
