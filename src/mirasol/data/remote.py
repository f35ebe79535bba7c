"""A folder behind a URL that holds shards: whole files in, whole files or stretches of them out.

A file there is named after its contents (:func:`object_name`) and never written over: what a list of shards names
stays what it was, whoever writes to the same folder later. It appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error
from mirasol.data.storage import store_of

HASHED = 16  # hexadecimal characters of the SHA-256 in a name


def object_name(name: str, sha256: str) -> str:
    """``train-00000.tar`` with its hash: ``train-00000.0123456789abcdef.tar``; an index likewise."""
    stem, suffix = name.split(".", 1)
    return f"{stem}.{sha256[:HASHED]}.{suffix}"


class RemoteFolder:
    """The folder at ``url``.

    Every method raises ``MirasolError`` if the store cannot be reached or refuses: its package has tried some times.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Name and bytes of each file; nothing if there is no such folder."""
        with self._opened("listed") as (files, inside):
            files.invalidate_cache()
            try:
                found = list(files.ls(inside, detail=True))
            except FileNotFoundError:
                return {}
        return {PurePosixPath(e["name"]).name: int(e["size"] or 0) for e in found if e["type"] == "file"}

    def put(self, path: Path, name: str) -> None:
        """Write the local file ``path`` as ``name``, whole or not at all."""
        with self._opened("written", name) as (files, inside):
            if "file" in files.protocol:  # fsspec would copy under the final name
                with path.open("rb") as source, atomic_write(inside) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            else:
                files.put_file(str(path), inside)

    def get(self, name: str, path: Path) -> None:
        """Copy the file ``name`` to the local ``path``."""
        with self._opened("read", name) as (files, inside):
            try:
                files.get_file(inside, str(path))
            except OSError as error:  # a store's own errors have numbers too
                told = disk_error(error, path) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
                raise told or error from error

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes of the file ``name`` from ``offset`` on, or all."""
        if size == 0:
            return b""
        with self._opened("read", name) as (files, inside):
            return bytes(files.cat_file(inside, start=offset or None, end=None if size is None else offset + size))

    @contextlib.contextmanager
    def _opened(self, done: str, name: str = "") -> Iterator[tuple[Any, str]]:
        """The file system and the path in it; whatever it raises as an error that says what to do."""
        url = f"{self.url}/{name}" if name else self.url
        try:
            yield store_of(url)
        except MirasolError:
            raise
        except ImportError as error:
            raise MirasolError(f"{url}: {error}: `pip install 'mirasol[cloud]'`, or the package it names") from error
        except Exception as error:  # each store has errors of its own
            told = str(error) or type(error).__name__
            raise MirasolError(
                f"{url}: cannot be {done}: {type(error).__name__}: {told}. Look at the address, the network and the "
                "credentials (from the environment or the files that the store's own tools read), then run again: what "
                "is done already stays"
            ) from error
