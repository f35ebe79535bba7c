"""Decode any media file to the frames and the sound of clips. PyAV and numpy, no torch.

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
SHORTEST = 1e-3  # seconds of a file that a check decodes at least
ENDS_EARLY = 0.5  # seconds: media that end by more before the stated time are truncated
GAP = 10.0  # seconds: decoding across it costs about as much as a seek, which starts at an earlier key frame
NO_STREAMS = "holds no video and no audio that can be decoded"


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
    partial: str  # faults in the media, "" if none


def decode_clip(path: str | Path, start: float | None, end: float | None, spec: ClipSpec) -> DecodedClip:
    """The frames and the sound from ``start`` to ``end`` seconds (None: from the beginning, to the end).

    The frame of a time is the one shown at it. Frames are cropped to the centre square, then scaled. A chunk is
    present if the media cover half of it or more: the last frame is held and silence follows; the first chunk must be
    covered completely.

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
    """:func:`decode_clip` of several spans of one file, or the error of each that cannot be used.

    Spans that lie close together are decoded in one pass, so the file is decoded about once. ``opened`` is the file if
    the caller has just opened it: opening costs as much as a few frames.
    """
    path = Path(path)
    size = 0  # bytes
    found: dict[int, DecodedClip | MediaError] = {}
    requests: list[_Request] = []
    try:
        with contextlib.nullcontext(opened) if opened is not None else open_media(path) as container:
            for number, (start, end) in enumerate(spans):
                try:
                    length, chunk_seconds = _length(container, path, start, end, spec)
                    size += _result_bytes(length, spec)
                    need_memory(size)
                    requests.append(_Request(number, path, start or 0.0, length, chunk_seconds, spec))
                    requests[-1].declared, requests[-1].broken_end = declared_seconds(container), broken_end(container)
                except MediaError as error:
                    found[number] = error
            unread = container if spec.sampling == "rate" or container.duration else None
            for group in _passes(requests):
                try:
                    _decode(group, unread, video=True)
                    found |= {request.number: request.clip() for request in group}
                except MediaError as error:
                    found |= {request.number: error for request in group}
                unread = None
    except MediaError as error:
        return [error] * len(spans)
    return [found[number] for number in range(len(spans))]


def decode_sound_of_copies(path: str | Path, starts: Sequence[float | None], spec: ClipSpec) -> list[DecodedClip]:
    """The sound of clips of one file, for frames that are copied without decoding; ``video`` is None.

    Raises:
        MediaError: the file cannot be opened.
    """
    path, seconds = Path(path), spec.chunk_seconds
    requests = [_Request(n, path, start or 0.0, spec.chunks * seconds, seconds, spec) for n, start in enumerate(starts)]
    for group in _passes(requests):
        _decode(group, None, video=False)
    return [request.copied_clip() for request in requests]


def check_file(path: str | Path, upto: float) -> tuple[MediaInfo, float, str]:
    """Decode the first ``upto`` seconds of a file, at least the first frame and the first sound.

    Returns:
        The file's header, the seconds that can be used, and the faults with the usable seconds of each stream, or "".

    Raises:
        MediaError: nothing can be decoded, or over a limit.
    """
    path = Path(path)
    with open_media(path) as container:
        info, declared, broken = info_of(container), declared_seconds(container), broken_end(container)
        if not info.has_video and not info.has_audio:
            raise MediaError(f"{path}: {NO_STREAMS}")
    length = max(SHORTEST, min(upto, MAX_SECONDS, declared or MAX_SECONDS))
    request = _Request(0, path, 0.0, length, length, ClipSpec(chunks=1, frames_per_chunk=4, size=16, sample_rate=4000))
    request.pictures.settled = length  # to the very end
    request.declared, request.broken_end = declared, broken
    _read([request], None, None, video=True)
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
    """One span of a file, with the resamplers that collect its frames and its sound."""

    def __init__(
        self, number: int, path: Path, begin: float, length: float, chunk_seconds: float, spec: ClipSpec
    ) -> None:
        if length <= 0:
            raise MediaError(f"{path}: the clip starts at {begin:g} s, where the media have ended")
        if length > MAX_SECONDS:
            raise MediaError(f"{path}: the clip lasts {length:g} s, the limit is {MAX_SECONDS:g} s: set start and end")
        self.number, self.path, self.begin, self.length = number, path, begin, length
        self.chunk_seconds, self.spec = chunk_seconds, spec
        self.declared: float | None = None  # seconds of the file by its header
        self.broken_end = ""  # the fault at the file's end
        self.reset()

    def reset(self) -> None:
        """Begin to collect again."""
        self.pictures = FrameResampler(self.path, self.begin, self.length, self.chunk_seconds, self.spec)
        self.sound = AudioResampler(self.begin, self.length, self.chunk_seconds, self.spec)

    def faults(self) -> str:
        """The faults in the media, or ""."""
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
        """``faults`` and the usable seconds of each stream."""
        return f"{faults}: picture up to {self.pictures.covered:.3g} s, sound up to {self.sound.covered:.3g} s"

    def clip(self) -> DecodedClip | MediaError:
        """The clip that was collected, or the error if it is empty or shorter than one chunk."""
        seconds, spec, faults = self.chunk_seconds, self.spec, self.faults()
        covered = [min(self.length, self.pictures.covered), min(self.length, self.sound.covered)]
        because = f" ({faults})" if faults else ""
        if max(covered) <= 0:
            return MediaError(f"{self.path}: nothing of the clip can be decoded{because}")
        if max(covered) < seconds * (1 - 0.5 / spec.frames_per_chunk):
            return MediaError(
                f"{self.path}: {max(covered):.3g} s can be used, shorter than one chunk of {seconds:.3g} s{because}: "
                "leave the clip out, or set a smaller clip.frames_per_chunk or a larger clip.fps"
            )
        counts = [min(spec.chunks, math.floor(c / seconds + 0.5)) for c in covered]
        chunks = max(counts)
        frames = chunks * spec.frames_per_chunk if counts[0] else 0
        return DecodedClip(
            video=np.stack(self.pictures.frames[:frames]) if frames else None,
            frame_times=tuple(self.pictures.times[:frames]),
            waveform=self.sound.samples[: chunk_edge(chunks, seconds, spec.sample_rate)] if counts[1] else None,
            chunks=chunks,
            video_chunks=counts[0],
            audio_chunks=counts[1],
            chunk_seconds=seconds,
            partial=self.extent(faults) if faults else "",
        )

    def copied_clip(self) -> DecodedClip:
        """The collected sound, for a clip with copied frames."""
        spec, sound = self.spec, self.sound
        heard = min(spec.chunks, math.floor(sound.covered / spec.chunk_seconds + 0.5))
        return DecodedClip(
            video=None,
            frame_times=tuple(round(i / spec.fps, 6) for i in range(spec.frames)),
            waveform=sound.samples if heard else None,
            chunks=spec.chunks,
            video_chunks=spec.chunks,
            audio_chunks=heard,
            chunk_seconds=spec.chunk_seconds,
            partial=sound.fault and f"{sound.fault}: sound up to {sound.covered:.3g} s",
        )


def _passes(requests: list[_Request]) -> list[list[_Request]]:
    """Groups that are read in one pass, with no more than GAP unused seconds between two requests."""
    groups: list[list[_Request]] = []
    reached = -math.inf
    for request in sorted(requests, key=lambda r: r.begin):
        if request.begin > reached + GAP:
            groups.append([])
        groups[-1].append(request)
        reached = max(reached, request.begin + request.length)
    return groups


def _decode(group: list[_Request], unread: InputContainer | None, *, video: bool) -> None:
    """Decode a group in one pass, after a seek if that helps; ``unread`` is the file, open and not yet read."""
    begin = group[0].begin
    if begin > 2 * SEEK_BEFORE:
        _read(group, begin - SEEK_BEFORE, unread, video=video)
        if not any((r.pictures if video else r.sound).late for r in group):
            return
        for request in group:  # the seek went too far: read from the beginning
            request.reset()
        unread = None
    _read(group, None, unread, video=video)


def _length(
    container: InputContainer, path: Path, start: float | None, end: float | None, spec: ClipSpec
) -> tuple[float, float]:
    """Seconds of the clip and of its chunks, before anything is decoded."""
    if not any(streams_of(container)):
        raise MediaError(f"{path}: {NO_STREAMS}")
    begin = start or 0.0
    if spec.sampling == "rate":
        whole = spec.chunks * spec.chunk_seconds
        return (whole if end is None else min(whole, end - begin)), spec.chunk_seconds
    duration = container.duration / av.time_base if container.duration else _scan(container)
    length = (duration if end is None else min(end, duration)) - begin
    return length, length / spec.chunks


def _result_bytes(length: float, spec: ClipSpec) -> int:
    """Memory of a clip while it is made: frames as they come, stacked, and in transfer; and its sound."""
    return 3 * spec.frames * spec.size * spec.size * 3 // 2 + round(12 * length * spec.sample_rate)


def _scan(container: InputContainer) -> float:
    """Duration from the packets of a file that does not state it."""
    last, origin = 0.0, origin_of(container)
    with contextlib.suppress(*UNUSABLE):  # the packets up to the damage count
        for packet in container.demux([s for s in streams_of(container) if s is not None]):
            heartbeat()
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin)
    return last


def _read(group: list[_Request], seek_to: float | None, unread: InputContainer | None, *, video: bool) -> None:
    """Feed the decoded frames of both streams to the group until all have enough, and record the faults of each."""
    path = group[0].path
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
                _record_fault([r.pictures if video else r.sound for r in group], f"{kind}: no decoder for its codec")
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
                    _record_fault(waiting, f"{packet.stream.type}: {reason(error)}", packet, origin)
        except UNUSABLE as error:
            _record_fault([s for those in sinks.values() for s in those if not s.done], reason(error))
    for those in sinks.values():
        for sink in those:
            try:
                sink.finish()
            except UNUSABLE as error:  # what the resampler refused, it refuses again
                _record_fault([sink], reason(error))


def _record_fault(
    sinks: Sequence[FrameResampler | AudioResampler], fault: str, packet: Any = None, origin: float = 0.0
) -> None:
    """Record a fault in the clips that it affects: a clip's result must not depend on the others of its pass."""
    for sink in sinks:
        if packet is not None and packet.pts is not None:
            time = float(packet.pts * packet.time_base) - origin - sink.begin
            if not -SAME_TIME <= time < sink.length:
                continue
        sink.fault = sink.fault or fault
