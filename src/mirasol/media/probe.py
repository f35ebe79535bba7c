"""Probe a media file by decoding it: usable, usable up to a time, or rejected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirasol.media.container import (
    MAX_SECONDS,
    UNUSABLE,
    MediaError,
    MediaInfo,
    declared_seconds,
    open_media,
    reason,
)
from mirasol.media.decode import check_file
from mirasol.media.sandbox import sandboxed


@dataclass(frozen=True)
class Status:
    """The result of :func:`probe_file`."""

    kind: str  # ok | partial | rejected
    reason: str  # "" if ok; of a partial file with the usable seconds of each stream
    seconds: float  # usable seconds of picture or sound among those decoded
    info: MediaInfo | None  # None if rejected


def probe_file(path: str | Path, upto: float = MAX_SECONDS) -> Status:
    """Decode the first ``upto`` seconds of a file in the sandbox; 0: the first frame and the first sound.

    Faults of the file never raise, and equal calls give equal results.

    Raises:
        MirasolError: the decoding process was killed from outside, twice.
    """
    try:
        return sandboxed(probe_unguarded, str(path), upto)
    except MediaError as error:
        return Status("rejected", f"{path}: {error}", 0.0, None)


def stated_seconds(path: str | Path) -> float | None:
    """The seconds that a file's header states, read in the sandbox; ``None`` if it states none or cannot be read."""
    try:
        return sandboxed(_stated, str(path))
    except MediaError:
        return None


def _stated(path: str) -> float | None:
    try:
        with open_media(path) as container:
            return declared_seconds(container)
    except UNUSABLE:
        return None


def probe_unguarded(path: str | Path, upto: float = MAX_SECONDS) -> Status:
    """As :func:`probe_file`, in this process."""
    try:
        info, seconds, faults = check_file(path, upto)
    except MediaError as error:
        return Status("rejected", str(error), 0.0, None)
    except UNUSABLE as error:
        return Status("rejected", f"{path}: {reason(error)}", 0.0, None)
    return Status("partial" if faults else "ok", faults, round(seconds, 3), info)
