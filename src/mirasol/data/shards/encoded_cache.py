"""Finished parts, kept beside the shards: what makes a killed run go on, and the next one do only what is new.

DVC deletes the shards before it runs their stage, so what may be used again lies elsewhere, in ``runs/``. A part is
a file named after all that its bytes follow from (``parts.part_name``). It counts only if its hashes hold, so no
kill and no power cut leaves a wrong one. The folder may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error
from mirasol.data.shards.encode import EncodedClip

LOCK = "lock"
AGAIN = ".again"  # ends the name of a part that the next run makes again


class EncodedCache:
    """The parts below ``folder``, for one run at a time; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()  # of files
        self._last: tuple[str, list[dict[str, Any]], int] | None = None  # name, header, where the contents begin
        self._handle = -1

    def __enter__(self) -> EncodedCache:
        """Take the folder.

        Raises:
            MirasolError: another run has it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._lock()
            for path in self.folder.glob("??/*"):
                if path.suffix:  # of a run that was killed, or to be made again
                    path.unlink()
                else:
                    self._names.add(path.name)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise disk_error(error, self.folder) or error from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def __contains__(self, name: str) -> bool:
        return name in self._names or name + AGAIN in self._names

    def write(self, name: str, part: list[EncodedClip]) -> None:
        """Keep ``part``; without fsync, because a part that a power cut has spoilt is made again.

        Raises:
            MirasolError: the disk is full, or cannot be written.
        """
        contents = [data for made in part for data in made.files.values()]
        header = json.dumps(
            [
                {"rejected": m.rejected, "facts": m.facts, "files": {kind: len(data) for kind, data in m.files.items()}}
                for m in part
            ]
        ).encode()
        file = name + ("" if all(made.final for made in part) else AGAIN)
        path = self._path(file)
        temporary = path.with_name(f"{name}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(b"\n".join([hashlib.sha256(header).hexdigest().encode(), header, b"".join(contents)]))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise disk_error(error, path) or error from error
        self._names.add(file)

    def read(self, name: str, index: int) -> EncodedClip | None:
        """Span ``index`` of a part, or ``None``: it is not there, or damaged and now forgotten."""
        file = name if name in self._names else name + AGAIN
        try:
            return self._read(self._path(file), name, index)
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            self._names.discard(file)
            self._last = None
            return None

    def keep_only(self, names: set[str]) -> None:
        """Delete all parts but these."""
        for file in self._names - names:
            self._path(file).unlink(missing_ok=True)
        self._names &= names

    def _read(self, path: Path, name: str, index: int) -> EncodedClip:
        with path.open("rb") as file:
            if self._last is None or self._last[0] != name:
                digest, header = file.readline().strip().decode(), file.readline()[:-1]
                if hashlib.sha256(header).hexdigest() != digest:
                    raise ValueError("the header does not match its hash")
                self._last = name, json.loads(header), file.tell()
            _, spans, at = self._last
            at += sum(size for span in spans[:index] for size in span["files"].values())
            file.seek(at)
            entry = spans[index]
            files = {kind: file.read(size) for kind, size in entry["files"].items()}
        for kind, data in files.items():
            if hashlib.sha256(data).hexdigest() != entry["facts"]["sha256"][kind]:
                raise ValueError(f"{kind} does not match its hash")
        return EncodedClip(files, entry["facts"], entry["rejected"])

    def _path(self, file: str) -> Path:
        return self.folder / file[:2] / file

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process, however that ends
        except BlockingIOError:
            holder = os.pread(self._handle, 200, 0).decode(errors="replace") or "unknown"
            raise MirasolError(
                f"{self.folder}: another run of the shards stage is at work here ({holder}): "
                "wait until it has ended, or stop it"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
