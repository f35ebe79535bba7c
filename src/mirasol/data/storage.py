"""What lies behind a URL: which are allowed, and media, read through fsspec, whole, into a local temporary file.

Decoders get local files only. A manifest may come from others, so the kinds of URL are an allow-list: stores of
objects and local files, no web addresses, no chains of file systems.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error

SCHEMES = ("file", "s3", "gs", "az", "abfs")
ASKED_AT_ONCE = 16  # objects whose identity is asked for at a time: each answer takes a round trip
CREDENTIALS = "credentials come from the environment or from the files that the store's own tools read"
_PASSWORD = re.compile(r"[^/]*:[^/]*@")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

Identity = tuple[Any, ...]


def is_url(media: str) -> bool:
    """Whether ``media`` names its store, ``scheme://...``; a path in the data folder otherwise."""
    return "://" in media


def check_url(url: str) -> str | None:
    """Why ``url`` cannot be read, or ``None``. What may be a password is not repeated."""
    scheme, _, rest = url.partition("://")
    if _PASSWORD.match(rest):
        return f"a URL with a password ({scheme}://…) would carry it into files and logs: {CREDENTIALS}"
    if scheme not in SCHEMES or not rest:
        return f"{url!r}: expected a path or a URL that begins with one of {', '.join(f'{s}://' for s in SCHEMES)}"
    if "::" in url or "://" in rest or "\0" in url or ".." in PurePosixPath(rest).parts:
        return f"{url!r}: a URL names one file: no '..', no '::', no second '://'"
    return None


def check_folder(url: str) -> str | None:
    """Why shards cannot lie at ``url``, or ``None``. What may be a password or a key is not repeated."""
    _, _, rest = url.partition("://")
    if "?" in rest or "#" in rest:
        return f"a query in a URL would get into files and logs: name the folder alone, {CREDENTIALS}"
    wrong = check_url(url)
    if wrong is None and any(sign in rest for sign in "*[]"):
        return f"{url!r}: expected the name of one folder, without '*', '[' and ']'"
    return wrong


def identities(data_dir: Path, media: Iterable[str]) -> dict[str, Identity | None]:
    """What tells one state of each file from another, without reading it; None where there is no file.

    A local file: size, times of change in nanoseconds and inode, which every way of writing it changes. An object:
    what its store says of it (size, tag, time).

    Raises:
        MirasolError: a store cannot be asked.
    """
    names = list(media)
    found: dict[str, Identity | None] = {name: _of_path(data_dir / name) for name in names if not is_url(name)}
    urls = [name for name in names if is_url(name)]
    if urls:
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            found |= zip(urls, pool.map(_of_url, urls), strict=True)
    return found


@contextlib.contextmanager
def local_file(data_dir: Path, media: str) -> Iterator[Path]:
    """A local path to ``media``: itself in the data folder, or a copy that is removed at the end of the block.

    Raises:
        FileNotFoundError, PermissionError: the store has no such object, or does not give it.
        MirasolError: the store cannot be asked, or the local disk is full.
    """
    if not is_url(media):
        yield data_dir / media
        return
    with tempfile.TemporaryDirectory(prefix="mirasol-") as folder:
        suffix = PurePosixPath(media).suffix
        path = Path(folder) / f"media{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        with _told(media):
            files, inside = store_of(media)
            files.get_file(inside, str(path))
        yield path


def _of_path(path: Path) -> Identity | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # decoding says why
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _of_url(url: str) -> Identity | None:
    try:
        with _told(url):
            files, inside = store_of(url)
            return (str(files.ukey(inside)),)
    except (FileNotFoundError, PermissionError):
        return None


def store_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        MirasolError: such URLs are not read.
        ImportError: the package for this kind of store is not installed.
    """
    if wrong := check_url(url):
        raise MirasolError(wrong)
    import fsspec

    files, inside = fsspec.core.url_to_fs(url)
    return files, str(inside)


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever a store raises as an error that names the URL; a file that is not there stays what it is."""
    try:
        yield
    except (FileNotFoundError, PermissionError, MirasolError):
        raise
    except ImportError as error:
        raise MirasolError(f"{url}: {error}: `pip install 'mirasol[cloud]'`, or the package it names") from error
    except Exception as error:  # each store has errors of its own: no network, no credentials, no bucket
        if isinstance(error, OSError) and (told := disk_error(error, Path(tempfile.gettempdir()))):
            raise told from error
        text = str(error) or os.strerror(getattr(error, "errno", None) or 0)
        raise MirasolError(f"{url}: cannot be read: {type(error).__name__}: {text}") from error
