"""Any media file to the frames and the sound of a clip. PyAV and numpy, no torch.

Time is presentation time, counted from the container's start, never frame number over frame rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from mirasol.data.collect import Pictures, Sound
from mirasol.data.features import chunk_edge
from mirasol.data.media import (
    MAX_SECONDS,
    UNUSABLE,
    MediaError,
    MediaInfo,
    check_pixels,
    open_media,
    origin_of,
    probe,
    reason,
    streams_of,
)
from mirasol.data.spec import ClipSpec

__all__ = ["DecodedClip", "MediaError", "MediaInfo", "decode_clip", "probe"]

SEEK_BEFORE = 0.25  # seconds: audio decoders need a run-up


@dataclass(frozen=True)
class DecodedClip:
    """Frames and sound of a clip with T' chunks, T' <= T. Chunks past the end of the media are left out."""

    video: NDArray[np.uint8] | None  # [T'*K, size*3/2, size], yuv420p, limited range, BT.601
    frame_times: tuple[float, ...]  # presentation time of each frame, from the clip's start
    waveform: NDArray[np.float32] | None  # [S] mono, from the clip's start, S = the end of chunk T'
    chunks: int  # T'
    video_chunks: int  # of the T', those with a picture
    audio_chunks: int  # of the T', those with sound
    chunk_seconds: float
    partial: str  # what could not be decoded, "" if all could


def decode_clip(path: str | Path, start: float | None, end: float | None, spec: ClipSpec) -> DecodedClip:
    """The frames and the sound from ``start`` to ``end`` seconds (None: from the beginning, to the end).

    The frame of a time is the one shown at it. Frames are cropped to the centre square, then scaled. A
    chunk counts as present when the media cover more than half of it: the last frame is held and silence
    follows; the first chunk must be covered whole.

    Raises:
        MediaError: no video and no audio, nothing decodable, shorter than one chunk, or over a limit.
    """
    path = Path(path)
    with open_media(path) as container:
        length, chunk_seconds = _length(container, path, start, end, spec)
    if length <= 0:
        raise MediaError(f"{path}: the clip starts at {start or 0:g} s, where the media have ended")
    if length > MAX_SECONDS:
        raise MediaError(f"{path}: the clip lasts {length:g} s, the limit is {MAX_SECONDS:g} s: set start and end")
    pictures, sound, partial = _decode(path, start or 0.0, length, chunk_seconds, spec, video=True)
    assert pictures is not None
    covered = [min(length, pictures.covered), min(length, sound.covered)]
    because = f" ({partial})" if partial else ""
    if max(covered) <= 0:
        raise MediaError(f"{path}: nothing of the clip can be decoded{because}")
    if max(covered) < chunk_seconds * (1 - 0.5 / spec.frames_per_chunk):
        raise MediaError(
            f"{path}: {max(covered):.3g} s can be used, shorter than one chunk of {chunk_seconds:.3g} s{because}: "
            "leave the clip out, or set a smaller clip.frames_per_chunk or a larger clip.fps"
        )
    counts = [min(spec.chunks, math.floor(seconds / chunk_seconds + 0.5)) for seconds in covered]
    chunks = max(counts)
    frames = chunks * spec.frames_per_chunk if counts[0] else 0
    return DecodedClip(
        video=np.stack(pictures.frames[:frames]) if frames else None,
        frame_times=tuple(pictures.times[:frames]),
        waveform=sound.samples[: chunk_edge(chunks, chunk_seconds, spec.sample_rate)] if counts[1] else None,
        chunks=chunks,
        video_chunks=counts[0],
        audio_chunks=counts[1],
        chunk_seconds=chunk_seconds,
        partial=partial,
    )


def decode_beside_copy(path: str | Path, start: float | None, spec: ClipSpec) -> DecodedClip:
    """The sound of a clip whose N frames are copied without decoding; ``video`` is None.

    Raises:
        MediaError: the file cannot be opened.
    """
    path, seconds = Path(path), spec.chunk_seconds
    _, sound, partial = _decode(path, start or 0.0, spec.chunks * seconds, seconds, spec, video=False)
    heard = min(spec.chunks, math.floor(sound.covered / seconds + 0.5))
    return DecodedClip(
        video=None,
        frame_times=tuple(round(i / spec.fps, 6) for i in range(spec.frames)),
        waveform=sound.samples if heard else None,
        chunks=spec.chunks,
        video_chunks=spec.chunks,
        audio_chunks=heard,
        chunk_seconds=seconds,
        partial=partial,
    )


def _decode(
    path: Path, begin: float, length: float, chunk_seconds: float, spec: ClipSpec, *, video: bool
) -> tuple[Pictures | None, Sound, str]:
    """Decode from ``begin`` on, by a seek where it helps; the last value says what went wrong, or ""."""
    for seek in (True, False) if begin > 2 * SEEK_BEFORE else (False,):
        pictures = Pictures(path, begin, length, chunk_seconds, spec) if video else None
        sound = Sound(begin, length, chunk_seconds, spec)
        partial = _read(path, pictures, sound, seek_to=begin - SEEK_BEFORE if seek else None)
        if not (pictures or sound).late:  # else the seek went too far: read from the beginning
            break
    return pictures, sound, partial


def _length(
    container: InputContainer, path: Path, start: float | None, end: float | None, spec: ClipSpec
) -> tuple[float, float]:
    """Seconds of the clip and of its chunks, before anything is decoded."""
    if not any(streams_of(container)):
        raise MediaError(f"{path}: holds no video and no audio that can be decoded")
    begin = start or 0.0
    if spec.sampling == "rate":
        whole = spec.chunks * spec.chunk_seconds
        return (whole if end is None else min(whole, end - begin)), spec.chunk_seconds
    duration = container.duration / av.time_base if container.duration else _scan(container)
    length = (duration if end is None else min(end, duration)) - begin
    return length, length / spec.chunks


def _scan(container: InputContainer) -> float:
    """Duration of a file that does not state it, from its packets."""
    last, origin = 0.0, origin_of(container)
    try:
        for packet in container.demux([s for s in streams_of(container) if s is not None]):
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin)
    except UNUSABLE:
        pass  # the packets up to the damage count
    return last


def _read(path: Path, pictures: Pictures | None, sound: Sound, seek_to: float | None) -> str:
    """Feed the decoded frames of both streams until both have enough; returns what went wrong, or ""."""
    wrong = ""
    with open_media(path) as container:
        video, audio = streams_of(container)
        sinks: dict[int, Pictures | Sound] = {}
        if video is not None and pictures is not None:
            check_pixels(path, video.codec_context.width, video.codec_context.height)
            pictures.rate = video.average_rate or video.guessed_rate
            pictures.aspect = video.sample_aspect_ratio or 1
            sinks[video.index] = pictures
        if audio is not None:
            sinks[audio.index] = sound
        streams = [container.streams[index] for index in sinks]
        for stream in streams:
            stream.codec_context.thread_count = 1
        origin = origin_of(container)
        try:
            if seek_to is not None:
                container.seek(int((origin + seek_to) * av.time_base), backward=True)
            for packet in container.demux(streams) if streams else ():
                sink = sinks[packet.stream.index]  # an empty last packet has no index of its own
                if sink.done:
                    if all(s.done for s in sinks.values()):
                        break
                    continue
                try:
                    for frame in packet.decode():
                        sink.push(frame, origin)
                except UNUSABLE as error:  # one damaged packet: the next may be good
                    wrong = wrong or f"{packet.stream.type}: {reason(error)}"
        except UNUSABLE as error:
            wrong = wrong or reason(error)
    for sink in sinks.values():
        sink.finish()
    return wrong
