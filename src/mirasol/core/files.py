"""Files that are written whole or not at all, and their hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mirasol.core.errors import MirasolError

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota is used up: free some space",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: choose a folder that can be written, or fix its permissions",
    errno.EPERM: "not permitted: choose a folder that can be written, or fix its permissions",
    errno.ENOTDIR: "a part of the path is a file: choose another",
    errno.EEXIST: "a part of the path is a file: choose another",
}


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path``; on success fsync and rename it over ``path``, on any error remove it.

    Raises:
        MirasolError: the folder is read-only or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise disk_error(error, path) or error from error
    except RuntimeError as error:  # of torch.save, which closes its archive on the full disk
        cause = error.__context__
        raise (isinstance(cause, OSError) and disk_error(cause, path)) or error from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def disk_error(error: OSError, path: Path) -> MirasolError | None:
    """The message for a disk that cannot be written; ``None`` for any other ``OSError``."""
    reason = DISK_ERRORS.get(error.errno or 0)
    if reason is None:
        return None
    return MirasolError(f"cannot write {path}: {reason}, then run again (nothing was left half-written)")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON with sorted keys: equal values give equal bytes."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
