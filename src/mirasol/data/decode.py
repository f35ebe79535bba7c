"""Any media file to the frames and the sound of a clip. PyAV and numpy, no torch.

Time is presentation time, counted from the container's start, never frame number over frame rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

__all__ = ["DecodedClip", "MediaError", "MediaInfo", "decode_clip", "decode_clips", "probe"]

Span = tuple[float | None, float | None]  # start and end in seconds, None: from the beginning, to the end

SEEK_BEFORE = 0.25  # seconds: audio decoders need a run-up
GAP = 10.0  # seconds: decoding across is about as cheap as a seek, which begins at a key frame before


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
    chunk counts as present when the media cover half of it or more: the last frame is held and silence
    follows; the first chunk must be covered whole.

    Raises:
        MediaError: no video and no audio, nothing decodable, shorter than one chunk, or over a limit.
    """
    (clip,) = decode_clips(path, [(start, end)], spec)
    if isinstance(clip, MediaError):
        raise clip
    return clip


def decode_clips(path: str | Path, spans: Sequence[Span], spec: ClipSpec) -> list[DecodedClip | MediaError]:
    """:func:`decode_clip` of several spans of one file, or why one cannot be used.

    Spans that lie close together are decoded in one pass, so that the file is decoded about once.
    """
    path = Path(path)
    found: dict[int, DecodedClip | MediaError] = {}
    requests: list[_Request] = []
    try:
        with open_media(path) as container:
            for number, (start, end) in enumerate(spans):
                try:
                    length, chunk_seconds = _length(container, path, start, end, spec)
                    requests.append(_Request(number, path, start or 0.0, length, chunk_seconds, spec))
                except MediaError as error:
                    found[number] = error
        for group in _together(requests):
            try:
                partial = _decode(path, group, spec, video=True)
            except MediaError as error:
                found |= {request.number: error for request in group}
                continue
            for request in group:
                try:
                    found[request.number] = _finish(path, request, spec, partial)
                except MediaError as error:
                    found[request.number] = error
    except MediaError as error:
        found = dict.fromkeys(range(len(spans)), error)
    return [found[number] for number in range(len(spans))]


def decode_beside_copy(path: str | Path, start: float | None, spec: ClipSpec) -> DecodedClip:
    """The sound of a clip whose N frames are copied without decoding; ``video`` is None.

    Raises:
        MediaError: the file cannot be opened.
    """
    path, seconds = Path(path), spec.chunk_seconds
    request = _Request(0, path, start or 0.0, spec.chunks * seconds, seconds, spec)
    partial = _decode(path, [request], spec, video=False)
    heard = min(spec.chunks, math.floor(request.sound.covered / seconds + 0.5))
    return DecodedClip(
        video=None,
        frame_times=tuple(round(i / spec.fps, 6) for i in range(spec.frames)),
        waveform=request.sound.samples if heard else None,
        chunks=spec.chunks,
        video_chunks=spec.chunks,
        audio_chunks=heard,
        chunk_seconds=seconds,
        partial=partial,
    )


class _Request:
    """One span of a file, with what collects its frames and its sound."""

    def __init__(
        self, number: int, path: Path, begin: float, length: float, chunk_seconds: float, spec: ClipSpec
    ) -> None:
        if length <= 0:
            raise MediaError(f"{path}: the clip starts at {begin:g} s, where the media have ended")
        if length > MAX_SECONDS:
            raise MediaError(f"{path}: the clip lasts {length:g} s, the limit is {MAX_SECONDS:g} s: set start and end")
        self.number, self.begin, self.length, self.chunk_seconds = number, begin, length, chunk_seconds
        self._again = path, begin, length, chunk_seconds, spec
        self.reset()

    def reset(self) -> None:
        """Begin to collect anew."""
        self.pictures = Pictures(*self._again)
        self.sound = Sound(*self._again[1:])


def _together(requests: list[_Request]) -> list[list[_Request]]:
    """Groups that are read in one pass: no more than GAP seconds of what nobody wants between two of them."""
    groups: list[list[_Request]] = []
    reached = -math.inf
    for request in sorted(requests, key=lambda r: r.begin):
        if request.begin > reached + GAP:
            groups.append([])
        groups[-1].append(request)
        reached = max(reached, request.begin + request.length)
    return groups


def _decode(path: Path, group: list[_Request], spec: ClipSpec, *, video: bool) -> str:
    """Decode a group in one pass, after a seek where it helps; returns what went wrong, or ""."""
    begin = group[0].begin
    if begin > 2 * SEEK_BEFORE:
        partial = _read(path, group, begin - SEEK_BEFORE, video=video)
        if not any((r.pictures if video else r.sound).late for r in group):
            return partial
        for request in group:  # the seek went too far: read from the beginning
            request.reset()
    return _read(path, group, None, video=video)


def _finish(path: Path, request: _Request, spec: ClipSpec, partial: str) -> DecodedClip:
    pictures, sound, seconds = request.pictures, request.sound, request.chunk_seconds
    covered = [min(request.length, pictures.covered), min(request.length, sound.covered)]
    because = f" ({partial})" if partial else ""
    if max(covered) <= 0:
        raise MediaError(f"{path}: nothing of the clip can be decoded{because}")
    if max(covered) < seconds * (1 - 0.5 / spec.frames_per_chunk):
        raise MediaError(
            f"{path}: {max(covered):.3g} s can be used, shorter than one chunk of {seconds:.3g} s{because}: "
            "leave the clip out, or set a smaller clip.frames_per_chunk or a larger clip.fps"
        )
    counts = [min(spec.chunks, math.floor(c / seconds + 0.5)) for c in covered]
    chunks = max(counts)
    frames = chunks * spec.frames_per_chunk if counts[0] else 0
    return DecodedClip(
        video=np.stack(pictures.frames[:frames]) if frames else None,
        frame_times=tuple(pictures.times[:frames]),
        waveform=sound.samples[: chunk_edge(chunks, seconds, spec.sample_rate)] if counts[1] else None,
        chunks=chunks,
        video_chunks=counts[0],
        audio_chunks=counts[1],
        chunk_seconds=seconds,
        partial=partial,
    )


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


def _read(path: Path, group: list[_Request], seek_to: float | None, *, video: bool) -> str:
    """Feed the decoded frames of both streams until all have enough; returns what went wrong, or ""."""
    wrong = ""
    with open_media(path) as container:
        pictures, audio = streams_of(container)
        sinks: dict[int, list[Pictures] | list[Sound]] = {}
        if pictures is not None and video:
            check_pixels(path, pictures.codec_context.width, pictures.codec_context.height)
            for request in group:
                request.pictures.rate = pictures.average_rate or pictures.guessed_rate
                request.pictures.aspect = pictures.sample_aspect_ratio or 1
            sinks[pictures.index] = [request.pictures for request in group]
        if audio is not None:
            sinks[audio.index] = [request.sound for request in group]
        streams = [container.streams[index] for index in sinks]
        for stream in streams:
            stream.codec_context.thread_count = 1
        origin = origin_of(container)
        try:
            if seek_to is not None:
                container.seek(int((origin + seek_to) * av.time_base), backward=True)
            for packet in container.demux(streams) if streams else ():
                waiting = [s for s in sinks[packet.stream.index] if not s.done]
                if not waiting:
                    if all(s.done for those in sinks.values() for s in those):
                        break
                    continue
                try:
                    for frame in packet.decode():
                        for sink in waiting:
                            sink.push(frame, origin)
                except UNUSABLE as error:  # one damaged packet: the next may be good
                    wrong = wrong or f"{packet.stream.type}: {reason(error)}"
        except UNUSABLE as error:
            wrong = wrong or reason(error)
    for those in sinks.values():
        for sink in those:
            sink.finish()
    return wrong
