"""The codecs that PyAV must carry, and the error when one is missing."""

from __future__ import annotations

from typing import Literal

from mirasol.core.errors import MirasolError

Mode = Literal["r", "w"]

# (codec, "r" to decode or "w" to encode, what it is for)
NEEDED: tuple[tuple[str, Mode, str], ...] = (
    ("libx264", "w", "the built-in world and the shards hold H.264"),
    ("h264", "r", "shards and most videos are H.264"),
    ("flac", "w", "the shards hold sound as FLAC"),
    ("flac", "r", "the shards hold sound as FLAC"),
)
MEND = "pip install --force-reinstall --no-deps --only-binary av av"


def has_codec(name: str, mode: Mode) -> bool:
    """Whether this PyAV can decode (``"r"``) or encode (``"w"``) with FFmpeg's codec ``name``."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def require_codec(name: str, mode: Mode) -> None:
    """Nothing if PyAV has the codec.

    Raises:
        MirasolError: it has not; the message says how to get it.
    """
    if not has_codec(name, mode):
        what = {"r": "decoder", "w": "encoder"}[mode]
        raise MirasolError(f"this PyAV has no {name} {what}: install its own wheel (`{MEND}`)")
