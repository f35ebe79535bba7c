"""Stubs that misbehave as decoders do; the sandboxed process imports them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from mirasol.data.shards import encode as parts
from mirasol.media import sandbox as guard


def hang(*_: Any) -> None:
    time.sleep(600)


def crash(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def eat(*_: Any) -> int:
    return len(bytearray(64 << 30))


def leave(*_: Any) -> None:
    os._exit(3)


def be_killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_killed_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        be_killed()
    return "done"


def be_slow(beats: bool) -> str:
    """Work for 1.5 s, with or without signs of life."""
    guard.BEAT_SECONDS = 0.05
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        time.sleep(0.02)
        if beats:
            guard.heartbeat()
    return "done"


def fail(*_: Any) -> None:
    raise KeyError("a mistake in the program")


def unsendable() -> object:
    return lambda: None


def pid() -> int:
    return os.getpid()


BAD = {"hang": hang, "crash": crash, "eat": eat, "killed": be_killed}


def make_part(path: Path, part: parts.SourceSlice, *settings: Any) -> list[parts.EncodedClip]:
    """As the real one, but for files that are named after what shall happen."""
    BAD.get(path.stem, lambda *_: None)()
    return parts.make_part(path, part, *settings)
