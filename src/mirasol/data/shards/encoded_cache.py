"""A cache of encoded slices: a killed run continues, and the next run encodes only new slices.

It lies in ``runs/``, because DVC deletes the shards before it runs their stage. Each slice is a file with the name of
``slice_name``, and counts only if its hashes match, so no kill and no power cut leaves a wrong one. The folder may be
deleted at any time. Hand-written: DVC's run cache knows whole stages, joblib's memory has neither hashes nor a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error
from mirasol.data.shards.encode import EncodedClip

LOCK = "lock"
AGAIN = ".again"  # suffix of a slice that the next run encodes again


class EncodedCache:
    """The slices below ``folder``, for one run at a time; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()  # of files
        self._last: tuple[str, list[dict[str, Any]], int] | None = None  # name, header, offset of the contents
        self._handle = -1

    def __enter__(self) -> EncodedCache:
        """Lock the folder.

        Raises:
            MirasolError: another run has locked it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._lock()
            for path in self.folder.glob("??/*"):
                if path.suffix:  # of a killed run, or to be encoded again
                    path.unlink()
                else:
                    self._names.add(path.name)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise disk_error(error, self.folder) or error from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def __contains__(self, name: str) -> bool:
        return name in self._names or name + AGAIN in self._names

    def write(self, name: str, clips: list[EncodedClip]) -> None:
        """Store a slice; without fsync, because a slice that a power cut damages is encoded again.

        Raises:
            MirasolError: the disk is full, or cannot be written.
        """
        contents = [data for clip in clips for data in clip.files.values()]
        sizes = [{kind: len(data) for kind, data in clip.files.items()} for clip in clips]
        entries = zip(clips, sizes, strict=True)
        header = json.dumps(
            [{"rejected": c.rejected, "facts": c.facts, "files": files} for c, files in entries]
        ).encode()
        file = name + ("" if all(clip.final for clip in clips) else AGAIN)
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
        """Span ``index`` of a slice; ``None`` if absent, or damaged and now forgotten."""
        file = name if name in self._names else name + AGAIN
        try:
            return self._read(self._path(file), name, index)
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            self._names.discard(file)
            self._last = None
            return None

    def keep_only(self, names: set[str]) -> None:
        """Delete all slices except these."""
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
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when this process ends
        except BlockingIOError:
            holder = os.pread(self._handle, 200, 0).decode(errors="replace") or "unknown"
            raise MirasolError(
                f"{self.folder}: another run of the shards stage uses this folder ({holder}): "
                "wait until it ends, or stop it"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
