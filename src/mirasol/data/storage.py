"""Media and shards behind URLs, through fsspec.

Decoders get local files only: an object is copied whole into a temporary file. A manifest may come from others, so
the kinds of URL are an allow-list: object stores and local files, no web addresses, no chained file systems.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from mirasol.core.errors import MirasolError, install
from mirasol.core.files import atomic_write, disk_error

RUNS = "MIRASOL_STORAGE"  # environment variable: URL of a folder for the files of runs (cluster.yaml: storage)
SCHEMES = ("file", "s3", "gs", "az", "abfs")
REQUESTS = 16  # concurrent requests for the identity of an object: each takes a round trip
CREDENTIALS = "credentials come from the environment or from the files that the store's own tools read"
ABSENT = (FileNotFoundError, PermissionError)
_PASSWORD = re.compile(r"[^/]*:[^/]*@")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

Identity = tuple[Any, ...]


def is_url(media: str) -> bool:
    """Whether ``media`` is a URL (``scheme://...``) and not a path in the data folder."""
    return "://" in media


def check_url(url: str) -> str | None:
    """Why ``url`` cannot be read, or ``None``. Does not repeat a possible password."""
    scheme, _, rest = url.partition("://")
    if _PASSWORD.match(rest):
        return f"a URL with a password ({scheme}://…) would carry it into files and logs: {CREDENTIALS}"
    if scheme not in SCHEMES or not rest:
        return f"{url!r}: expected a path or a URL that begins with one of {', '.join(f'{s}://' for s in SCHEMES)}"
    if "::" in url or "://" in rest or "\0" in url or ".." in PurePosixPath(rest).parts:
        return f"{url!r}: a URL names one file: no '..', no '::', no second '://'"
    return None


def check_folder(url: str) -> str | None:
    """Why shards cannot be stored at ``url``, or ``None``. Does not repeat a possible password or key."""
    _, _, rest = url.partition("://")
    if "?" in rest or "#" in rest:
        return f"a query in a URL would get into files and logs: name the folder alone, {CREDENTIALS}"
    wrong = check_url(url)
    if wrong is None and any(sign in rest for sign in "*[]"):
        return f"{url!r}: expected the name of one folder, without '*', '[' and ']'"
    return wrong


def identities(data_dir: Path, media: Iterable[str]) -> dict[str, Identity | None]:
    """The identity of each file, which any change of its contents changes, without reading it; None if it is missing.

    A local file: size, times of change in nanoseconds and inode. An object: its store's size, tag and time.

    Raises:
        MirasolError: a store cannot be reached.
    """
    names = list(media)
    found: dict[str, Identity | None] = {name: _path_identity(data_dir / name) for name in names if not is_url(name)}
    urls = [name for name in names if is_url(name)]
    if urls:
        with ThreadPoolExecutor(REQUESTS) as pool:
            found |= zip(urls, pool.map(_url_identity, urls), strict=True)
    return found


def _path_identity(path: Path) -> Identity | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # the decoder reports why
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _url_identity(url: str) -> Identity | None:
    try:
        with _opened(url, passed=ABSENT) as (files, inside):
            return (str(files.ukey(inside)),)
    except ABSENT:
        return None


@contextlib.contextmanager
def local_file(data_dir: Path, media: str) -> Iterator[Path]:
    """A local path to ``media``: itself in the data folder, or a copy that is removed at the end of the block.

    Raises:
        FileNotFoundError, PermissionError: the store has no such object, or refuses it.
        MirasolError: the store cannot be reached, or the local disk is full.
    """
    if not is_url(media):
        yield data_dir / media
        return
    with tempfile.TemporaryDirectory(prefix="mirasol-") as folder:
        suffix = PurePosixPath(media).suffix
        path = Path(folder) / f"media{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        with _opened(media, passed=ABSENT, copy=path) as (files, inside):
            files.get_file(inside, str(path))
        yield path


class RemoteFolder:
    """The folder at ``url``, for whole files in, and whole files or byte ranges out.

    Files are named after their contents (:func:`mirasol.data.shards.format.object_name`), appear only when whole and
    are never overwritten, so an older list of shards stays valid. Every method raises ``MirasolError`` if the store
    refuses or cannot be reached after its package's retries.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Name and bytes of each file; empty if the folder does not exist."""
        with _opened(self.url, "listed") as (files, inside):
            files.invalidate_cache()
            try:
                found = list(files.ls(inside, detail=True))
            except FileNotFoundError:
                return {}
        return {PurePosixPath(e["name"]).name: int(e["size"] or 0) for e in found if e["type"] == "file"}

    def put(self, path: Path, name: str) -> None:
        """Write the local file ``path`` as ``name``, whole or not at all."""
        with _opened(f"{self.url}/{name}", "written") as (files, inside):
            if "file" in files.protocol:  # fsspec would copy under the final name
                with path.open("rb") as source, atomic_write(inside) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            else:
                files.put_file(str(path), inside)

    def get(self, name: str, path: Path) -> None:
        """Copy the file ``name`` to the local ``path``."""
        with _opened(f"{self.url}/{name}", copy=path) as (files, inside):
            files.get_file(inside, str(path))

    def remove(self, name: str) -> None:
        """Remove the file ``name``; one that is gone already is no error."""
        opened = _opened(f"{self.url}/{name}", "removed", passed=(FileNotFoundError,))
        with contextlib.suppress(FileNotFoundError), opened as (files, inside):
            files.rm_file(inside)

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes of the file ``name`` from ``offset`` on, or all."""
        if size == 0:
            return b""
        with _opened(f"{self.url}/{name}") as (files, inside):
            return bytes(files.cat_file(inside, start=offset or None, end=None if size is None else offset + size))


@contextlib.contextmanager
def _opened(
    url: str, action: str = "read", *, passed: tuple[type[OSError], ...] = (), copy: Path | None = None
) -> Iterator[tuple[Any, str]]:
    """The file system of ``url`` and the path in it. Turns errors, except ``passed``, into ones that name the URL.

    ``copy`` is the local file that the block writes.
    """
    if wrong := check_url(url):
        raise MirasolError(wrong)
    try:
        import fsspec  # only projects with media or shards behind URLs need it

        files, inside = fsspec.core.url_to_fs(url)
        yield files, str(inside)
    except MirasolError:
        raise
    except passed:
        raise
    except ImportError as error:
        raise MirasolError(f"{url}: {error}: run {install('cloud')}, or install the package it names") from error
    except Exception as error:  # each store has its own errors, some of them OSErrors with numbers
        if copy is not None and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise (disk_error(error, copy) or error) from error
        raise MirasolError(
            f"{url}: cannot be {action}: {type(error).__name__}: {str(error) or type(error).__name__}. Look at the "
            "address, the network and the credentials (from the environment or the files that the store's own tools "
            "read), then run again: finished work is kept"
        ) from error
