"""The source that a name or an address stands for."""

from __future__ import annotations

import math
import re
from pathlib import Path

from mirasol.media.clip import ClipSpec
from mirasol.runtime.sources.camera import SCHEMES, LiveSource
from mirasol.runtime.sources.files import Source, open_source
from mirasol.runtime.sources.synthetic import SYNTHETIC, SyntheticSource


def open_stream(source: str | Path, clip: ClipSpec) -> Source:
    """Open a file, a folder, ``synthetic``, a camera (its device, or its number: 0) or an RTSP address.

    Raises MirasolError if ``source`` is none of these, cannot be opened, or holds nothing that can be decoded.
    """
    if str(source) == SYNTHETIC:
        return SyntheticSource(clip)
    if re.fullmatch("[0-9]{1,2}", str(source)) and not Path(source).exists():
        source = f"/dev/video{source}"
    return LiveSource(str(source), clip) if is_live(str(source)) else open_source(source, clip)


def is_live(source: str) -> bool:
    """Whether ``source`` names a camera device or an RTSP address."""
    return source.startswith((*SCHEMES, "/dev/video"))


def seconds_of(text: str) -> float:
    """``2``, ``2s``, ``500ms`` or ``1m`` in seconds; raises ValueError for other texts, and for 0."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|)", text.strip())
    value = float(found[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}[found[2]] if found else 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a time above 0: expected one like 2s, 500ms or 1m")
    return value
