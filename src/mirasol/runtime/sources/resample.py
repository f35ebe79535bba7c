"""The loader's resamplers (:mod:`mirasol.media.resample`) without an end: frames and samples go out chunk by chunk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError
from mirasol.media.resample import SAME_TIME, AudioResampler, FrameResampler
from mirasol.runtime.features import Frames, Samples

LONGEST_GAP = 3600.0  # seconds that a frame or silence may fill; a longer jump forward is an error
LONGEST_RETURN = 5.0  # seconds by which time stamps may go back: repeated media take no time, but are decoded
MOST_WAITING = 60.0  # seconds of sound besides a chunk; only time stamps that go back make more wait
HELD_BACK = 0.1  # seconds that FFmpeg's resampler may still hold after a later frame


class StreamFrameResampler(FrameResampler):
    """Frames of a stream, chunk by chunk."""

    def __init__(self, path: Path, begin: float, length: float, chunk_seconds: float, clip: ClipSpec) -> None:
        """``length`` in seconds from ``begin``, infinite if unknown."""
        super().__init__(path, begin, length, chunk_seconds, clip)
        self.chunk_seconds = chunk_seconds
        self.interval = chunk_seconds / clip.frames_per_chunk
        self.per_chunk = clip.frames_per_chunk
        self.last = self.most = math.inf  # last wanted time before the end, and number of frames
        if math.isfinite(length):
            self.last = self.interval * max(0, math.ceil((length - SAME_TIME) / self.interval) - 1)
            chunks = math.floor(length / chunk_seconds + 0.5)
            self.most = chunks * clip.frames_per_chunk
            self.settled = (chunks - 0.5) * chunk_seconds
        self.given = self.taken = 0  # frames picked, chunks handed out
        self.finished = False

    @property
    def done(self) -> bool:
        """Whether all wanted frames were picked."""
        return self.given >= self.most and self.covered >= self.settled

    def push(self, frame: Any, origin: float) -> None:
        """Place the next frame; raises MediaError like the loader's, and if the time stamps jump too far."""
        if frame.time is not None and self._shown is not None:
            back = self._shown[1] - (frame.time - origin - self.begin)
            if back > LONGEST_RETURN:
                raise jump(self.path, "pictures", -back, self.begin + self.covered)
        super().push(frame, origin)

    def finish(self) -> None:
        """At the end of the source: hold the last frame to the end of the last chunk that is covered by half."""
        self.finished = True
        self.most = math.floor(self.covered / self.chunk_seconds + 0.5) * self.per_chunk
        self._give(until=math.inf)
        if self.given > self.most:
            del self.frames[max(0, len(self.frames) - int(self.given - self.most)) :]

    def ready(self) -> bool:
        """Whether a whole chunk is waiting and covered by half."""
        settled = self.finished or self.covered >= (self.taken + 0.5) * self.chunk_seconds
        return settled and len(self.frames) >= self.per_chunk

    def take(self) -> Frames:
        """The next chunk [K, size*3/2, size]."""
        chunk = np.stack(self.frames[: self.per_chunk])
        del self.frames[: self.per_chunk]
        self.taken += 1
        self._decoded = 0  # the limit for one clip applies to one chunk here
        return chunk

    def _give(self, until: float) -> None:
        gap = min(until, self.last) - self.given * self.interval
        if math.isfinite(gap) and gap > LONGEST_GAP:  # every held frame waits in memory
            raise jump(self.path, "pictures", gap, self.begin + self.covered)
        while self.given < self.most and min(self.given * self.interval, self.last) + SAME_TIME < until:
            assert self._shown is not None
            if self._square is None:
                self._square = self._convert(self._shown[0])
            self.frames.append(self._square)
            self.given += 1


class StreamAudioResampler(AudioResampler):
    """Samples of a stream, chunk by chunk."""

    def __init__(self, path: Path, begin: float, length: float, chunk_seconds: float, clip: ClipSpec) -> None:
        """``length`` in seconds from ``begin``, infinite if unknown."""
        super().__init__(begin, 0.0, chunk_seconds, clip)
        self.path, self.end_time = path, length
        self.blocks: list[tuple[int, Samples]] = []  # (position of the first sample, samples)
        self.silent = (0.0, 0.0)  # begin and end of a jump that is longer than LONGEST_GAP
        self.waiting, self.most_waiting = 0, round((chunk_seconds + MOST_WAITING) * self.rate)

    @property
    def done(self) -> bool:
        """Whether all wanted samples arrived."""
        return self.ready_at(self.end_time)

    def push(self, frame: Any, origin: float) -> None:
        """Place the next frame; raises MediaError if the time stamps go back too far."""
        if frame.time is not None:
            gap = min(frame.time - origin - self.begin, self.end_time) - self._expected
            if self.came and gap < -LONGEST_RETURN:
                raise jump(self.path, "sound", gap, self.begin + self.covered)
            if gap > LONGEST_GAP:
                self.silent = (self._expected, self._expected + gap)
        super().push(frame, origin)

    def check_silence(self, low: int) -> None:
        """Raise MediaError if sample ``low`` lies within a silence longer than LONGEST_GAP."""
        begin, end = self.silent
        if begin <= low / self.rate < end:
            raise jump(self.path, "sound", end - begin, self.begin + begin)

    def ready_at(self, seconds: float) -> bool:
        """Whether all sound before ``seconds`` arrived."""
        return self._expected > seconds + HELD_BACK

    def take(self, low: int, high: int) -> Samples:
        """Samples ``low`` to ``high``, counted from the beginning; frees all before ``high``."""
        samples = np.zeros(high - low, np.float32)
        for position, block in self.blocks:
            first, last = max(low, position), min(high, position + len(block))
            if last > first:
                samples[first - low : last - low] = block[first - position : last - position]
        self.blocks = [(position, block) for position, block in self.blocks if position + len(block) > high]
        self.waiting = sum(len(block) for _, block in self.blocks)
        return samples

    def _place(self, *blocks: NDArray[Any]) -> None:
        for block in blocks:
            if math.isfinite(self.end_time):
                block = block[: max(0, round(self.end_time * self.rate) - self._position)]
            if len(block):
                self.blocks.append((self._position, np.asarray(block, np.float32)))
                self.waiting += len(block)
                self.covered = max(self.covered, (self._position + len(block)) / self.rate)
            self._position += len(block)
        if self.waiting > self.most_waiting:
            place = self.begin + self.covered
            raise MediaError(
                f"{self.path}: the time stamps of the sound go back again and again at {place:.1f} s: "
                "write the file again with times that rise"
            )


def jump(path: Path, kind: str, gap: float, place: float) -> MediaError:
    """The error for time stamps that jump by ``gap`` seconds at ``place`` seconds."""
    way, most = ("jump", LONGEST_GAP) if gap > 0 else ("go back", LONGEST_RETURN)
    return MediaError(
        f"{path}: the time stamps of the {kind} {way} by {abs(gap):.0f} s at {place:.1f} s, "
        f"at most {most:.0f} s can be bridged: cut the file there and stream the parts as a folder"
    )
