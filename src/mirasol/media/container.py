"""Open media files: local regular files of known formats, and no other file that they point to.

Files are untrusted: no network, no playlists, no image sequences, and limits that are checked before memory is
allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.container import InputContainer

from mirasol.core.errors import MirasolError

Mode = Literal["r", "w"]

MAX_PIXELS = 1 << 26  # of a source frame
MAX_ASPECT = 32  # longer side over shorter side
MAX_SECONDS = 3600.0  # of a clip
MAX_FRAMES = 1 << 19  # decoded for one clip
RATES = (100, 1 << 20)  # audio samples per second
# Demuxers that read one file and open no other: no hls, dash, concat, image sequences.
FORMATS = (
    "mov,matroska,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,wav,w64,mp3,flac,aac,aiff,caf,au,amr,ape,ac3,eac3,"
    "gif,h264,hevc,ivf,mxf,nut,rm,dv,m4v,wv,tta"
)
# Formats whose length FFmpeg guesses from the bit rate of the first packets.
WITHOUT_LENGTH = {"mp3", "aac", "ac3", "eac3", "amr", "h264", "hevc", "m4v", "mpegvideo", "dv", "mpeg", "mpegts"}
TS_PACKETS = (188, 192, 204)  # bytes of a packet of an MPEG transport stream: plain, Blu-ray, with error correction
UNUSABLE = (av.error.FFmpegError, OSError, ValueError, MemoryError)
# (codec, "r" to decode or "w" to encode, its use)
CODECS: tuple[tuple[str, Mode, str], ...] = (
    ("libx264", "w", "the built-in world and the shards hold H.264"),
    ("h264", "r", "shards and most videos are H.264"),
    ("flac", "w", "the shards hold sound as FLAC"),
    ("flac", "r", "the shards hold sound as FLAC"),
)
# Tags that are not UTF-8 do not stop a file: asked of PyAV 18, always so from 19 on.
ANY_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
PYAV_WHEEL = "pip install --force-reinstall --no-deps --only-binary av av"


class MediaError(MirasolError):
    """A file or a clip that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class MediaInfo:
    """The header of a file. Seconds and pixels; ``None`` or 0 if not stated."""

    duration: float | None
    has_video: bool
    has_audio: bool
    width: int
    height: int
    fps: float | None
    video_codec: str
    audio_codec: str
    sample_rate: int
    channels: int


def has_codec(name: str, mode: Mode) -> bool:
    """Whether this PyAV can decode (``"r"``) or encode (``"w"``) with FFmpeg's codec ``name``."""
    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def require_codec(name: str, mode: Mode) -> None:
    """Raise :class:`MirasolError` with the remedy unless :func:`has_codec`."""
    if not has_codec(name, mode):
        kind = {"r": "decoder", "w": "encoder"}[mode]
        raise MirasolError(f"this PyAV has no {name} {kind}: install its own wheel (`{PYAV_WHEEL}`)")


def open_media(path: str | Path) -> InputContainer:
    """Open a local media file, and no other file that it may point to.

    Raises:
        MediaError: the file does not exist, or is not a media file of a known format.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: no such file" if not path.exists() else f"{path}: is not a regular file")
    try:
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS} | decoder_options()
        opened: InputContainer = av.open(f"file:{path}", "r", options=options, **ANY_TAGS)
        return opened
    except UNUSABLE as error:
        raise MediaError(f"{path}: cannot be opened as video or audio: {reason(error)}") from error


def probe(path: str | Path) -> MediaInfo:
    """The header of a file, without decoding.

    Raises:
        MediaError: as :func:`open_media`.
    """
    with open_media(path) as container:
        return info_of(container)


def info_of(container: InputContainer) -> MediaInfo:
    """As :func:`probe`, of an open file."""
    video, audio = streams_of(container)
    return MediaInfo(
        duration=container.duration / av.time_base if container.duration else None,
        has_video=video is not None,
        has_audio=audio is not None,
        width=video.codec_context.width if video else 0,
        height=video.codec_context.height if video else 0,
        fps=float(video.average_rate) if video and video.average_rate else None,
        video_codec=video.codec_context.name if video else "",
        audio_codec=audio.codec_context.name if audio else "",
        sample_rate=audio.codec_context.sample_rate if audio else 0,
        channels=audio.codec_context.channels if audio else 0,
    )


def decoder_options() -> dict[str, str]:
    """Options that keep FFmpeg from allocating a picture before its size is checked."""
    return {"max_pixels": str(MAX_PIXELS * 5 // 4)}  # of the coded picture, which is padded


def reason(error: BaseException) -> str:
    """The reason of an FFmpeg error, without the file name that it repeats."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def streams_of(container: InputContainer) -> tuple[Any, Any]:
    """The first video stream that is not a cover picture, and the first audio stream; None if absent."""
    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    video = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & cover]
    audio = [s for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]
    return (video[0] if video else None), (audio[0] if audio else None)


def origin_of(container: InputContainer) -> float:
    """The presentation time that counts as 0: the start of the container, as in players."""
    start = container.start_time
    return max(0.0, start / av.time_base) if start is not None else 0.0


def declared_seconds(container: InputContainer) -> float | None:
    """The duration in the file's header; None if absent or unreliable."""
    if container.format.name == "mp3":
        return _mp3_seconds(_path_of(container))
    if not container.duration or not WITHOUT_LENGTH.isdisjoint(container.format.name.split(",")):
        return None
    video, audio = streams_of(container)
    used = [stream for stream in (video, audio) if stream is not None]
    if container.format.name == "avi" and video is not None and video.frames and video.average_rate:
        return float(video.frames / video.average_rate)  # FFmpeg shortens a truncated AVI's duration
    if not used or any(stream.duration is None for stream in used):
        return container.duration / av.time_base
    ends = [float(((stream.start_time or 0) + stream.duration) * stream.time_base) for stream in used]
    return max(ends) - origin_of(container)  # other streams, like subtitles, may last longer


def broken_end(container: InputContainer) -> str:
    """The fault at the end of an MPEG transport stream, which states no duration; "" if none."""
    path = _path_of(container)
    if container.format.name != "mpegts":
        return ""
    with path.open("rb") as file:
        start = file.read(2 * max(TS_PACKETS) + 8)
    # The distance between sync bytes; Blu-ray puts a time of four bytes before each.
    fits = [n for n in TS_PACKETS for at in (0, 4) if start[at : at + 1] == start[at + n : at + n + 1] == b"\x47"]
    over = path.stat().st_size % fits[0] if fits else 0
    return f"the file ends within a packet, {over} of its {fits[0]} bytes are there" if over else ""


def _path_of(container: InputContainer) -> Path:
    return Path(container.name.removeprefix("file:"))


def _mp3_seconds(path: Path) -> float | None:
    """Duration from the table of contents in the first frame of an MP3 (by Xing, Info); None without one."""
    with path.open("rb") as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":  # seven bits of its size in each of four bytes
            file.seek(10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(tag[6:10])))
        else:
            file.seek(0)
        frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3  # version 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    mono = frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
    if frame[at : at + 4] not in (b"Xing", b"Info") or not frame[at + 7] & 1 or rate == 3 or version == 1:
        return None
    frames = int.from_bytes(frame[at + 8 : at + 12], "big")
    samples, divided = (1152, 1) if version == 3 else (576, 2 if version == 2 else 4)
    return frames * samples * divided / (44100, 48000, 32000)[rate]


def check_rate(path: Path, rate: int) -> None:
    """Raise :class:`MediaError` for a sample rate outside RATES: resampling takes memory in proportion."""
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"{path}: {rate} audio samples per second, the limits are {RATES[0]} and {RATES[1]}")


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise :class:`MediaError` for frames over MAX_PIXELS or MAX_ASPECT."""
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: {width}x{height} pixels a frame, the limit is {MAX_PIXELS}")
    if min(width, height) > 0 and max(width, height) > MAX_ASPECT * min(width, height):
        raise MediaError(f"{path}: {width}x{height} pixels: one side is more than {MAX_ASPECT} times the other")
