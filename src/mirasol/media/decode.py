"""Any media file to the frames and the sound of a clip. PyAV and numpy, no torch.

Time is presentation time, counted from the container's start, never frame number over frame rate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.container import (
    MAX_SECONDS,
    UNUSABLE,
    MediaError,
    MediaInfo,
    broken_end,
    check_pixels,
    check_rate,
    declared_seconds,
    decoder_options,
    info_of,
    open_media,
    origin_of,
    probe,
    reason,
    streams_of,
)
from mirasol.media.log_mel import chunk_edge
from mirasol.media.resample import SAME_TIME, AudioResampler, FrameResampler
from mirasol.media.sandbox import heartbeat, need_memory

__all__ = ["DecodedClip", "MediaError", "MediaInfo", "decode_clip", "decode_clips", "probe"]

Span = tuple[float | None, float | None]  # start and end in seconds, None: from the beginning, to the end

SEEK_BEFORE = 0.25  # seconds: audio decoders need a run-up
LOOK = 1e-3  # seconds: the shortest look into a file
ENDS_EARLY = 0.5  # seconds: media that end by more before the time stated are truncated
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


def decode_clips(
    path: str | Path, spans: Sequence[Span], spec: ClipSpec, opened: InputContainer | None = None
) -> list[DecodedClip | MediaError]:
    """:func:`decode_clip` of several spans of one file, or why one cannot be used.

    Spans that lie close together are decoded in one pass, so that the file is decoded about once. ``opened`` is the
    file where a caller has just opened it: that costs as much as a few frames.
    """
    path = Path(path)
    results = 0  # bytes
    found: dict[int, DecodedClip | MediaError] = {}
    requests: list[_Request] = []
    try:
        with contextlib.nullcontext(opened) if opened is not None else open_media(path) as container:
            for number, (start, end) in enumerate(spans):
                try:
                    length, chunk_seconds = _length(container, path, start, end, spec)
                    results += _size(length, spec)
                    need_memory(results)
                    requests.append(_Request(number, path, start or 0.0, length, chunk_seconds, spec))
                    requests[-1].declared, requests[-1].broken_end = declared_seconds(container), broken_end(container)
                except MediaError as error:
                    found[number] = error
            unread = container if spec.sampling == "rate" or container.duration else None
            for group in _together(requests):
                try:
                    _decode(path, group, unread, video=True)
                except MediaError as error:
                    found |= {request.number: error for request in group}
                    continue
                finally:
                    unread = None
                for request in group:
                    try:
                        found[request.number] = _finish(path, request, spec)
                    except MediaError as error:
                        found[request.number] = error
    except MediaError as error:
        found = dict.fromkeys(range(len(spans)), error)
    return [found[number] for number in range(len(spans))]


def decode_beside_copies(path: str | Path, starts: Sequence[float | None], spec: ClipSpec) -> list[DecodedClip]:
    """The sound of clips of one file whose N frames are copied without decoding; ``video`` is None.

    Raises:
        MediaError: the file cannot be opened.
    """
    path, seconds = Path(path), spec.chunk_seconds
    length = spec.chunks * seconds
    requests = [_Request(n, path, start or 0.0, length, seconds, spec) for n, start in enumerate(starts)]
    for group in _together(requests):
        _decode(path, group, None, video=False)
    return [_beside_copy(request, spec) for request in requests]


def _beside_copy(request: _Request, spec: ClipSpec) -> DecodedClip:
    heard = min(spec.chunks, math.floor(request.sound.covered / spec.chunk_seconds + 0.5))
    return DecodedClip(
        video=None,
        frame_times=tuple(round(i / spec.fps, 6) for i in range(spec.frames)),
        waveform=request.sound.samples if heard else None,
        chunks=spec.chunks,
        video_chunks=spec.chunks,
        audio_chunks=heard,
        chunk_seconds=spec.chunk_seconds,
        partial=request.sound.fault and f"{request.sound.fault}: sound up to {request.sound.covered:.3g} s",
    )


def check_file(path: str | Path, upto: float) -> tuple[MediaInfo, float, str]:
    """Decode the first ``upto`` seconds of a file, of both streams at least what comes first.

    Returns:
        What the file says of itself, the seconds that can be used, and what went wrong with up to where each
        stream can be used, or "".

    Raises:
        MediaError: nothing can be decoded, or over a limit.
    """
    path = Path(path)
    with open_media(path) as container:
        info, declared, broken = info_of(container), declared_seconds(container), broken_end(container)
        if not info.has_video and not info.has_audio:
            raise MediaError(f"{path}: holds no video and no audio that can be decoded")
    length = max(LOOK, min(upto, MAX_SECONDS, declared or MAX_SECONDS))
    request = _Request(0, path, 0.0, length, length, ClipSpec(chunks=1, frames_per_chunk=4, size=16, sample_rate=4000))
    request.pictures.settled = length  # to the very end
    request.declared, request.broken_end = declared, broken
    _read(path, [request], None, None, video=True)
    pictures, sound = request.pictures, request.sound
    faults = [fault for fault in [request.faults()] if fault]
    if not pictures.came and not sound.came:
        raise MediaError("; ".join([f"{path}: nothing can be decoded", *faults]))
    if info.has_video and not pictures.came:
        faults.append("no picture can be decoded")
    if info.has_audio and not sound.came:
        faults.append("no sound can be decoded")
    return info, max(pictures.covered, sound.covered), request.extent("; ".join(faults)) if faults else ""


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
        self.declared: float | None = None  # seconds of the file, as its header says
        self.broken_end = ""  # what is wrong with the file's end
        self._again = path, begin, length, chunk_seconds, spec
        self.reset()

    def reset(self) -> None:
        """Begin to collect anew."""
        self.pictures = FrameResampler(*self._again)
        self.sound = AudioResampler(*self._again[1:])

    def faults(self) -> str:
        """What went wrong, or ""."""
        found = [fault for fault in (self.pictures.fault, self.sound.fault) if fault]
        usable = max(self.pictures.covered, self.sound.covered)
        enough = self.pictures.done or self.sound.done  # reading stopped before the end of the media
        promised = min(self.length, self.declared - self.begin) if self.declared is not None else 0.0
        if not enough and usable < promised - ENDS_EARLY:
            found.append(f"the media end at {self.begin + usable:.3g} s, the file says {self.declared:.3g} s")
        if not enough and self.broken_end:
            found.append(self.broken_end)
        return "; ".join(dict.fromkeys(found))

    def extent(self, faults: str) -> str:
        """``faults``, and up to where the media can be used in spite of them."""
        return f"{faults}: picture up to {self.pictures.covered:.3g} s, sound up to {self.sound.covered:.3g} s"


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


def _decode(path: Path, group: list[_Request], unread: InputContainer | None, *, video: bool) -> None:
    """Decode a group in one pass, after a seek where it helps; ``unread`` is the file, open and not read yet."""
    begin = group[0].begin
    if begin > 2 * SEEK_BEFORE:
        _read(path, group, begin - SEEK_BEFORE, unread, video=video)
        if not any((r.pictures if video else r.sound).late for r in group):
            return
        for request in group:  # the seek went too far: read from the beginning
            request.reset()
        unread = None
    _read(path, group, None, unread, video=video)


def _finish(path: Path, request: _Request, spec: ClipSpec) -> DecodedClip:
    pictures, sound, seconds = request.pictures, request.sound, request.chunk_seconds
    covered = [min(request.length, pictures.covered), min(request.length, sound.covered)]
    faults = request.faults()
    because = f" ({faults})" if faults else ""
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
        partial=request.extent(faults) if faults else "",
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


def _size(length: float, spec: ClipSpec) -> int:
    """Bytes of a clip while it is made: frames as they come, stacked, and on their way elsewhere; and its sound."""
    return 3 * spec.frames * spec.size * spec.size * 3 // 2 + round(12 * length * spec.sample_rate)


def _scan(container: InputContainer) -> float:
    """Duration of a file that does not state it, from its packets."""
    last, origin = 0.0, origin_of(container)
    try:
        for packet in container.demux([s for s in streams_of(container) if s is not None]):
            heartbeat()
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin)
    except UNUSABLE:
        pass  # the packets up to the damage count
    return last


def _read(
    path: Path, group: list[_Request], seek_to: float | None, unread: InputContainer | None, *, video: bool
) -> None:
    """Feed the decoded frames of both streams until all have enough, and note what goes wrong for each."""
    with contextlib.nullcontext(unread) if unread is not None else open_media(path) as container:
        pictures, audio = streams_of(container)
        sinks: dict[int, Sequence[FrameResampler | AudioResampler]] = {}
        if pictures is not None and video:
            check_pixels(path, pictures.codec_context.width, pictures.codec_context.height)
            for request in group:
                request.pictures.rate = pictures.average_rate or pictures.guessed_rate
                request.pictures.aspect = pictures.sample_aspect_ratio or 1
            sinks[pictures.index] = [request.pictures for request in group]
        if audio is not None:
            check_rate(path, audio.codec_context.sample_rate)
            sinks[audio.index] = [request.sound for request in group]
        for kind, stream in (("video", pictures), ("audio", audio)):
            if stream is None and any(s.type == kind and s.codec_context is None for s in container.streams):
                _note([r.pictures if video else r.sound for r in group], f"{kind}: no decoder for its codec")
        streams = [container.streams[index] for index in sinks]
        for stream in streams:
            stream.codec_context.thread_count = 1
            stream.codec_context.options = decoder_options()
        origin = origin_of(container)
        try:
            if seek_to is not None:
                container.seek(int((origin + seek_to) * av.time_base), backward=True)
            for packet in container.demux(streams) if streams else ():
                heartbeat()
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
                    _note(waiting, f"{packet.stream.type}: {reason(error)}", packet, origin)
        except UNUSABLE as error:
            _note([s for those in sinks.values() for s in those if not s.done], reason(error))
    for those in sinks.values():
        for sink in those:
            sink.finish()


def _note(
    sinks: Sequence[FrameResampler | AudioResampler], fault: str, packet: Any = None, origin: float = 0.0
) -> None:
    """Remember a fault where it matters: a clip's verdict must not depend on the clips it is decoded with."""
    for sink in sinks:
        if packet is not None and packet.pts is not None:
            time = float(packet.pts * packet.time_base) - origin - sink.begin
            if not -SAME_TIME <= time < sink.length:
                continue
        sink.fault = sink.fault or fault
