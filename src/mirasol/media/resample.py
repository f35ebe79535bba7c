"""Resample decoded frames and sound, in order, to the time axis of one clip."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.container import MAX_ASPECT, MAX_FRAMES, UNUSABLE, MediaError, check_pixels
from mirasol.media.log_mel import chunk_edge

# Sample formats that numpy converts as exactly as the resampler, and their full scale.
FULL_SCALE = {"s16": 32768.0, "s16p": 32768.0, "s32": 2147483648.0, "s32p": 2147483648.0, "flt": 1.0, "fltp": 1.0}
MIX = {"rematrix_maxval": "1.0"}  # the mean of the channels; FFmpeg's default may exceed full scale
JUMP = 0.02  # seconds: audio that differs by more from its expected time restarts the resampler
RUN_UP = 0.1  # seconds of sound before the clip that the resampler gets
SAME_TIME = 1e-3  # rounding of time stamps
Rotation = tuple[bool, bool, bool]  # see rotation_of
UPRIGHT = (False, False, False)
TURNED = {-90: (True, True, False), 90: (True, False, True), -180: (False, True, True), 180: (False, True, True)}
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class FrameResampler:
    """Picks the frame shown at each wanted time from frames in presentation order."""

    def __init__(self, path: Path, begin: float, length: float, chunk_seconds: float, spec: ClipSpec) -> None:
        grid = np.arange(spec.frames) * (chunk_seconds / spec.frames_per_chunk)
        self.wanted = np.minimum(grid, grid[grid < length - SAME_TIME].max(initial=0.0))
        self.path, self.begin, self.length, self.size = path, begin, length, spec.size
        self.frames: list[NDArray[np.uint8]] = []
        self.times: list[float] = []  # presentation time of each, from the clip's start
        self.covered = 0.0  # seconds of the clip with a picture
        # Once half of the last chunk is covered, no later frame can change the result.
        self.settled = (math.floor(min(spec.chunks, length / chunk_seconds) + 0.5) - 0.5) * chunk_seconds
        self.fault = ""  # the first fault
        self.late = False  # the first frame came after the clip's start
        self.rate: Fraction | None = None  # of the stream
        self.aspect: Fraction | int = 1  # of a pixel
        self._shown: tuple[Any, float] | None = None
        self._square: NDArray[np.uint8] | None = None
        self._reformatter = VideoReformatter()
        self._decoded = 0

    @property
    def came(self) -> bool:
        """Whether any frame was decoded."""
        return self._decoded > 0

    @property
    def done(self) -> bool:
        return len(self.frames) == len(self.wanted) and self.covered >= self.settled

    def push(self, frame: Any, origin: float) -> None:
        step = float(1 / self.rate) if self.rate else 0.04
        before = self._shown[1] if self._shown else None
        time = -self.begin if before is None else before + step  # for a frame without a time stamp
        if frame.time is not None:
            time = frame.time - origin - self.begin
        if before is None:
            self.late = time > SAME_TIME
        self._decoded += 1
        if self._decoded > MAX_FRAMES:
            raise MediaError(f"{self.path}: more than {MAX_FRAMES} frames to decode for one clip: cut the file")
        check_pixels(self.path, frame.width, frame.height)
        if self._shown is None:
            self._shown = (frame, time)
        self._give(until=max(time, self._shown[1]))
        self._shown = (frame, max(time, self._shown[1]))
        self._square = None
        if frame.is_corrupt and 0 <= time < self.length:
            self.fault = self.fault or "video: a damaged frame"
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
        self.covered = max(0.0, min(self.length, self._shown[1] + min(lasts, 1.0)))

    def finish(self) -> None:
        if self._shown is not None:
            self._give(until=math.inf)

    def _give(self, until: float) -> None:
        """Store the shown frame for every wanted time before ``until``."""
        while len(self.frames) < len(self.wanted) and self.wanted[len(self.frames)] + SAME_TIME < until:
            assert self._shown is not None
            frame, time = self._shown
            if self._square is None:
                self._square = self._convert(frame)
            self.frames.append(self._square)
            self.times.append(round(time, 6))

    def _convert(self, frame: Any) -> NDArray[np.uint8]:
        """Centre square of the displayed picture, [size*3/2, size], limited range, BT.601."""
        shape = float(frame.width * self.aspect) / frame.height
        if not 1 / MAX_ASPECT <= shape <= MAX_ASPECT:
            raise MediaError(f"{self.path}: the picture is {shape:.3g} times as wide as high: outside the limit")
        width = max(self.size, 2 * round(self.size * shape / 2))
        height = max(self.size, 2 * round(self.size / shape / 2))
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        wide = {1: Colorspace.ITU709, 9: Colorspace.BT2020, 10: Colorspace.BT2020}
        guess = Colorspace.ITU709 if frame.colorspace == 2 and frame.height >= 720 else Colorspace.ITU601
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuv420p",
            src_colorspace=wide.get(frame.colorspace, guess),
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
            threads=1,
        )
        # Scaling keeps the display matrix. A frame whose side data was read refers to itself and waits for the garbage
        # collector, so read that of the small frame: a stream once held half a gigabyte of large ones.
        return center_crop(scaled, self.size, rotation_of(scaled))


def rotation_of(frame: Any) -> Rotation:
    """The display matrix of a frame as (columns and rows exchanged, then columns reversed, then rows reversed).

    The matrix [a b u, c d v, ...] takes the point (x, y) to (ax + cy, bx + dy). Angles are rounded to right ones.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV refuses all side data if there is a kind that it does not know
        return TURNED.get(frame.rotation, UPRIGHT)
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = (float(n) for n in np.frombuffer(matrix, np.int32)[:5])
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def center_crop(frame: Any, size: int, rotation: Rotation = UPRIGHT) -> NDArray[np.uint8]:
    """Centre square of a yuv420p frame, turned upright."""
    left, top = (frame.width - size) // 4, (frame.height - size) // 4  # in chroma samples
    exchanged, columns_reversed, rows_reversed = rotation
    found, at = np.empty(size * size * 3 // 2, np.uint8), 0
    for plane, scale in zip(frame.planes, (2, 1, 1), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        side = size * scale // 2
        cut = rows[top * scale : top * scale + side, left * scale : left * scale + side]
        cut = cut.T if exchanged else cut
        cut = cut[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
        found[at : at + side * side].reshape(side, side)[:] = cut
        at += side * side
    return found.reshape(size * 3 // 2, size)


def mean_of_channels(frame: Any) -> Any:
    """A frame of sound as one channel: the mean of all."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(axis=0, keepdims=True, dtype=np.float64)
    if samples.dtype.kind == "u":  # of 8 bits
        mono = (mono - 128) / 128
    elif samples.dtype.kind == "i":
        mono /= -float(np.iinfo(samples.dtype).min)
    mixed = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono, np.float32), format="fltp", layout="mono")
    mixed.sample_rate = frame.sample_rate
    return mixed


class AudioResampler:
    """Places decoded sound on the clip's time axis, mono at the wanted rate; gaps stay silent."""

    def __init__(self, begin: float, length: float, chunk_seconds: float, spec: ClipSpec) -> None:
        self.begin, self.length, self.rate = begin, length, spec.sample_rate
        self.samples = np.zeros(chunk_edge(spec.chunks, chunk_seconds, spec.sample_rate), np.float32)
        self.end = min(len(self.samples), round(length * spec.sample_rate))  # leaves out sound after the clip's end
        self.covered = 0.0
        self.fault = ""  # the first fault
        self.late = False  # the first sample came after the clip's start
        self._resampler: av.AudioResampler | None = None
        self._mixes = False  # whether this class makes one channel of several
        self._source: tuple[str, str, int] | None = None
        self._expected = 0.0  # where the next source frame should begin, seconds from the clip's start
        self._position = 0  # where the next resampled sample goes

    @property
    def came(self) -> bool:
        """Whether any sound in or near the clip was decoded."""
        return self._source is not None

    @property
    def done(self) -> bool:
        return self._expected > self.end / self.rate + 0.1  # 0.1 s: the resampler may hold back as much

    def push(self, frame: Any, origin: float) -> None:
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        time = self._expected if frame.time is None else frame.time - origin - self.begin
        if time + frame.samples / frame.sample_rate < -RUN_UP:
            return  # too far before the clip to make a difference, wherever reading began
        if self._source is None:
            self.late = time > SAME_TIME
        if source != self._source or abs(time - self._expected) > JUMP:
            self.finish()
            self._source, self._expected, self._position = source, time, round(time * self.rate)
            self._resampler, self._mixes = None, False
            if source[1:] != ("mono", self.rate) or source[0] not in FULL_SCALE:
                self._resampler = av.AudioResampler("fltp", "mono", self.rate, options=MIX)
        self._expected += frame.samples / frame.sample_rate
        if self._resampler is None:
            samples = frame.to_ndarray().reshape(-1).astype(np.float32)
            self._place(samples / FULL_SCALE[source[0]])
        else:
            self._place(*self._resampled(frame))

    def _resampled(self, frame: Any) -> list[NDArray[np.float32]]:
        stamp, frame.pts = frame.pts, None  # the resampler joins its input
        try:
            if not self._mixes:
                return [f.to_ndarray()[0] for f in self._resampler.resample(frame)]  # type: ignore[union-attr]
        except UNUSABLE:  # FFmpeg knows no way from these channels to one
            self._mixes = True
            self._resampler = av.AudioResampler("fltp", "mono", self.rate)
        finally:
            frame.pts = stamp  # another clip may use the frame
        return [f.to_ndarray()[0] for f in self._resampler.resample(mean_of_channels(frame))]  # type: ignore[union-attr]

    def finish(self) -> None:
        """Flush the resampler."""
        if self._resampler is not None:
            self._place(*(f.to_ndarray()[0] for f in self._resampler.resample(None)))
        self._resampler = None

    def _place(self, *blocks: NDArray[np.float32]) -> None:
        for block in blocks:
            low, high = max(0, self._position), min(self.end, self._position + len(block))
            if high > low:
                self.samples[low:high] = block[low - self._position : high - self._position]
                self.covered = max(self.covered, high / self.rate)
            self._position += len(block)
