"""From the fields of an annotation to the media file that is called after them."""

from __future__ import annotations

import bisect
import functools
import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from mirasol.core.errors import MirasolError

# What `*` may stand for at the end of a name: no half-loaded files, captions or thumbnails.
PICTURES = (".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv")
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac")
ANY = "*"  # any characters within one name


def check_pattern(pattern: str, fields: Sequence[str]) -> None:
    """Check that ``pattern`` names fields of the set alone.

    Raises:
        MirasolError: it does not, or is no pattern.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise MirasolError(f"--pattern {pattern!r}: {error}: write a field as {{{fields[0]}}}") from error
    if ".." in pattern.split("/"):
        raise MirasolError(f"--pattern {pattern!r}: names files below the folder of media, so without '..'")
    unknown = [name for name in names if name not in fields]
    if unknown or not names:
        what = f"unknown field {unknown[0]!r}" if unknown else "names no field, so every row would have one file"
        raise MirasolError(f"--pattern {pattern!r}: {what}: the fields of this set are {', '.join(fields)}")


def fill(pattern: str, fields: Mapping[str, str | int]) -> list[str]:
    """The texts between the ``*`` of ``pattern``, with the fields filled in; one text where there is no ``*``.

    Raises:
        MirasolError: a field is not of the kind that its format asks for.
    """
    try:
        parts = pattern.replace(ANY, "\0").format_map(fields).split("\0")
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise MirasolError(f"--pattern {pattern!r} does not fit {dict(fields)}: {error}") from error
    return [parts[0].lstrip("/"), *parts[1:]]


class MediaFolder:
    """The files below a folder, found by patterns such as ``video{video_id}.mp4`` or ``{youtube_id}_*.*``."""

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self.folder = folder
        self.patterns = tuple(patterns)

    @functools.cached_property
    def names(self) -> list[str]:
        """Paths of all media below the folder, sorted, with forward slashes."""
        found = []
        for folder, _, files in os.walk(self.folder, followlinks=True):
            below = Path(folder).relative_to(self.folder)
            found += [(below / name).as_posix() for name in files if Path(name).suffix.lower() in PICTURES + SOUNDS]
        return sorted(found)

    def find(self, fields: Mapping[str, str | int]) -> list[str]:
        """The files that the first pattern with any finds: one, none, or several where ``*`` is too wide."""
        for pattern in self.patterns:
            parts = fill(pattern, fields)
            found = self._matching(parts) if len(parts) > 1 else self._file(parts[0])
            if found:
                return found
        return []

    def _file(self, name: str) -> list[str]:
        return [name] if (self.folder / name).is_file() else []

    def _matching(self, parts: list[str]) -> list[str]:
        shape = re.compile("[^/]*".join(re.escape(part) for part in parts))
        found = []
        for name in self.names[bisect.bisect_left(self.names, parts[0]) :]:
            if not name.startswith(parts[0]):
                break
            if shape.fullmatch(name):
                found.append(name)
        return found
