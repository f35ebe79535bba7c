"""One status per media file: can it be used, up to where, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirasol.media.container import MAX_SECONDS, MediaError, MediaInfo
from mirasol.media.decode import check_file
from mirasol.media.sandbox import sandboxed


@dataclass(frozen=True)
class Status:
    """What :func:`status_of` found."""

    kind: str  # ok | partial | rejected
    reason: str  # "" if ok; of a partial file also up to where picture and sound can be used
    seconds: float  # of picture or sound that can be used, from the beginning, as far as was looked
    info: MediaInfo | None  # None if rejected


def status_of(path: str | Path, upto: float = MAX_SECONDS) -> Status:
    """Decode the first ``upto`` seconds of a file in a guarded process; 0: the first frame and the first sound.

    Never raises for what is in the file, and says the same every time.

    Raises:
        MirasolError: the process that decodes was killed from outside, twice.
    """
    try:
        return sandboxed(examine, str(path), upto)
    except MediaError as error:
        return Status("rejected", f"{path}: {error}", 0.0, None)


def examine(path: str | Path, upto: float = MAX_SECONDS) -> Status:
    """As :func:`status_of`, in this process."""
    try:
        info, seconds, faults = check_file(path, upto)
    except MediaError as error:
        return Status("rejected", str(error), 0.0, None)
    return Status("partial" if faults else "ok", faults, round(seconds, 3), info)
