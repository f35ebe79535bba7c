"""The loader's rules for frames and sound, without an end: what was handed out is forgotten.

Which frame is shown at a time, how it is cropped and scaled, how sound is placed and resampled is the
code of :mod:`mirasol.media.resample`; here only the clip's end moves along.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError
from mirasol.media.resample import SAME_TIME, AudioResampler, FrameResampler

Frames = NDArray[np.uint8]
Samples = NDArray[np.float32]
LONGEST_GAP = 3600.0  # seconds for which a picture is held, or silence is heard; a longer jump forward is an error
LONGEST_RETURN = 5.0  # seconds by which time stamps may go back: what comes again takes no time, but is decoded
MOST_WAITING = 60.0  # seconds of sound, or a chunk and this: more of it can only be time stamps that go back
HELD_BACK = 0.1  # seconds: what the resampler may still hold when a later frame has been pushed


class StreamPictures(FrameResampler):
    """The frames of a stream, handed out chunk by chunk."""

    def __init__(self, path: Path, begin: float, length: float, chunk_seconds: float, clip: ClipSpec) -> None:
        """``length`` in seconds from ``begin``, infinite when nobody knows."""
        super().__init__(path, begin, length, chunk_seconds, clip)
        self.chunk_seconds = chunk_seconds
        self.interval = chunk_seconds / clip.frames_per_chunk
        self.per_chunk = clip.frames_per_chunk
        self.last = self.most = math.inf  # last wanted time before the end (later ones show the same), and frames
        if math.isfinite(length):
            self.last = self.interval * max(0, math.ceil((length - SAME_TIME) / self.interval) - 1)
            chunks = math.floor(length / chunk_seconds + 0.5)
            self.most = chunks * clip.frames_per_chunk
            self.settled = (chunks - 0.5) * chunk_seconds
        self.given = self.taken = 0  # frames, and chunks of them that were handed out
        self.finished = False

    @property
    def done(self) -> bool:
        """Nothing more is wanted."""
        return self.given >= self.most and self.covered >= self.settled

    def push(self, frame: Any, origin: float) -> None:
        """Place the next frame.

        Raises:
            MediaError: as the loader's, or the time stamps jump too far.
        """
        if frame.time is not None and self._shown is not None:
            back = self._shown[1] - (frame.time - origin - self.begin)
            if back > LONGEST_RETURN:
                raise jump(self.path, "pictures", -back, self.begin + self.covered)
        super().push(frame, origin)

    def finish(self) -> None:
        """The source has ended: hold the last frame to the end of the last chunk that is covered by half."""
        self.finished = True
        self.most = math.floor(self.covered / self.chunk_seconds + 0.5) * self.per_chunk
        self._give(until=math.inf)
        if self.given > self.most:
            del self.frames[max(0, len(self.frames) - int(self.given - self.most)) :]

    def ready(self) -> bool:
        """Whether a whole chunk is waiting, and is known to be covered by half."""
        settled = self.finished or self.covered >= (self.taken + 0.5) * self.chunk_seconds
        return settled and len(self.frames) >= self.per_chunk

    def take(self) -> Frames:
        """The next chunk [K, size*3/2, size]."""
        chunk = np.stack(self.frames[: self.per_chunk])
        del self.frames[: self.per_chunk]
        self.taken += 1
        self._decoded = 0  # the limit is one of a clip: here, of what one chunk may cost
        return chunk

    def _give(self, until: float) -> None:
        gap = min(until, self.last) - self.given * self.interval
        if math.isfinite(gap) and gap > LONGEST_GAP:  # every frame that is held waits in memory
            raise jump(self.path, "pictures", gap, self.begin + self.covered)
        while self.given < self.most and min(self.given * self.interval, self.last) + SAME_TIME < until:
            assert self._shown is not None
            if self._square is None:
                self._square = self._convert(self._shown[0])
            self.frames.append(self._square)
            self.given += 1


class StreamSound(AudioResampler):
    """The sound of a stream, handed out chunk by chunk."""

    def __init__(self, path: Path, begin: float, length: float, chunk_seconds: float, clip: ClipSpec) -> None:
        """``length`` in seconds from ``begin``, infinite when nobody knows."""
        super().__init__(begin, 0.0, chunk_seconds, clip)
        self.path, self.end_time = path, length
        self.blocks: list[tuple[int, Samples]] = []  # (position of the first sample, samples)
        self.silent = (0.0, 0.0)  # from and to: hours for which the time stamps say that there is none
        self.waiting, self.most_waiting = 0, round((chunk_seconds + MOST_WAITING) * self.rate)

    @property
    def done(self) -> bool:
        """Nothing more is wanted."""
        return self.ready_at(self.end_time)

    def push(self, frame: Any, origin: float) -> None:
        """Place the next frame.

        Raises:
            MediaError: the time stamps go back too far.
        """
        if frame.time is not None:
            gap = min(frame.time - origin - self.begin, self.end_time) - self._expected
            if self.came and gap < -LONGEST_RETURN:
                raise jump(self.path, "sound", gap, self.begin + self.covered)
            if gap > LONGEST_GAP:
                self.silent = (self._expected, self._expected + gap)
        super().push(frame, origin)

    def check_silence(self, low: int) -> None:
        """What begins with sample ``low`` is no part of a silence that nobody would want to hear to its end.

        Raises:
            MediaError: it is.
        """
        begin, end = self.silent
        if begin <= low / self.rate < end:
            raise jump(self.path, "sound", end - begin, self.begin + begin)

    def ready(self, until: int) -> bool:
        """Whether all samples before ``until`` are there."""
        return self.ready_at(until / self.rate)

    def ready_at(self, seconds: float) -> bool:
        """Whether all sound before ``seconds`` is there."""
        return self._expected > seconds + HELD_BACK

    def take(self, low: int, high: int) -> Samples:
        """Samples ``low`` to ``high``, counted from the beginning; what is before ``high`` is forgotten."""
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
                "write the file anew with times that rise"
            )


def jump(path: Path, kind: str, gap: float, place: float) -> MediaError:
    """An error: time stamps jump by ``gap`` seconds, ``place`` seconds into the file."""
    way, most = ("jump", LONGEST_GAP) if gap > 0 else ("go back", LONGEST_RETURN)
    return MediaError(
        f"{path}: the time stamps of the {kind} {way} by {abs(gap):.0f} s at {place:.1f} s, "
        f"at most {most:.0f} s can be bridged: cut the file there and stream the parts as a folder"
    )
