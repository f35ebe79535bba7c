"""One lock per workspace: two pipelines in one folder would delete each other's outputs.

DVC's own lock gives up after three seconds and does not cover a whole run; ours waits, names its holder, and is held
until the holder's last child is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error

LOCK_FILE = Path("runs", "workspace.lock")


@dataclass(frozen=True)
class Lock:
    """A held lock: permission to change the workspace ``root``."""

    root: Path
    handle: int
    """Descriptor that holds the lock; a child with a copy of it holds the lock too."""


@contextlib.contextmanager
def hold(
    root: str | Path, purpose: str, *, wait: float = 600.0, say: Callable[[str], None] = print, every: float = 60.0
) -> Iterator[Lock]:
    """Hold the workspace's lock inside the ``with`` block.

    Args:
        purpose: the holder as other users read it ("pipeline", "ingest").
        wait: seconds to wait for another holder; 0 fails at once.
        say: gets a line when waiting begins, and then one ``every`` that many seconds.

    Raises:
        MirasolError: another process held it all that time, or the folder cannot be written.
    """
    root = Path(root).resolve()
    path = root / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk_error(error, path) or error from error
    try:
        _wait_for(handle, root, wait, say, every)
        mine = {
            "what": purpose,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(mine).encode(), 0)
        yield Lock(root, handle)
    finally:
        os.close(handle)  # not unlocked: a child that is still ending keeps it


def _wait_for(handle: int, root: Path, wait: float, say: Callable[[str], None], every: float) -> None:
    start = time.monotonic()
    noted = float("-inf")
    while True:
        try:
            # flock, not lockf: it belongs to the open file, so children share it and keep it held
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
        holder = _holder(handle)
        if now - start >= wait:
            raise MirasolError(
                f"workspace {root} is in use by {holder}; waited {now - start:.0f} s. Let it end or stop it, then run"
                " again. To run side by side, give each its own folder: `mirasol workspace NAME`"
            )
        if now - noted >= every:
            say(f"workspace {root} is in use by {holder}: waiting up to {wait - (now - start):.0f} s more")
            noted = now
        time.sleep(min(0.25, max(0.01, wait - (now - start))))


def _holder(handle: int) -> str:
    try:
        seen = json.loads(os.pread(handle, 4096, 0))
        return f"`{seen['what']}` (process {seen['pid']} on {seen['host']}, since {seen['since']})"
    except (ValueError, KeyError, TypeError):
        return "another run"
