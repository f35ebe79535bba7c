"""Live sources: a camera device or an RTSP address.

A thread reads and decodes, reconnects after a break, and places frames and sound by their time stamps with the
loader's rules. If the model is too slow, the oldest chunks are dropped and counted; an empty chunk replaces one that
does not arrive in time.
"""

from __future__ import annotations

import collections
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.media.container import ANY_TAGS, UNUSABLE, MediaError, check_pixels, decoder_options, reason, streams_of
from mirasol.media.log_mel import chunk_edge
from mirasol.runtime.features import Frames, Samples
from mirasol.runtime.sources.files import Chunk, fit, refuse_spread, sixteen_bits
from mirasol.runtime.sources.resample import StreamAudioResampler, StreamFrameResampler

SCHEMES = ("rtsp://", "rtsps://")
PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto"
ANALYSED = "1000000"  # microseconds that FFmpeg may probe an address: they all arrive at once
READ_SECONDS = 5.0  # without a packet until the connection is opened again
RETRY_SECONDS = 2.0  # between two attempts
PATIENCE = 60.0  # seconds without a connection until the stream has ended
LATE = 1.0  # seconds that a chunk, or one of its two modalities, may be late
GAP = 5.0  # seconds between two time stamps, forward or back, that begin a new timeline
WAITING = 8  # chunks that wait for the model before the oldest is dropped

MediaChunk = tuple[Frames | None, Samples | None]


class LiveSource:
    """The chunks of a camera device (``/dev/video0``, video only) or of an RTSP address.

    Args:
        address: the device or the address; errors never show the name and password in it.
        clip: how the model's clips are cut.
        open_container: opens it; for tests.
        patience: seconds without a connection until the stream ends.

    Raises:
        MirasolError: it cannot be opened, or the model spreads its chunks over a whole file. An error of the reading
            thread that no camera causes ends the stream and is raised as it is.
    """

    def __init__(
        self,
        address: str,
        clip: ClipSpec,
        *,
        open_container: Callable[[], Any] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.name, self.clip, self.chunk_seconds = shown(address), clip, clip.chunk_seconds
        refuse_spread(self.name, clip)
        self.dropped = 0  # chunks that came faster than the model took them
        self._open = open_container or (lambda: _open(address))
        self._patience = patience
        self._arrived: collections.deque[tuple[int, MediaChunk]] = collections.deque()  # with their connection
        self._change = threading.Condition()
        self._ended = self._stopped = False
        self._wrong = ""
        self._fault: Exception | None = None  # of the reading thread, not caused by the camera
        try:
            self._container = self._open()
        except UNUSABLE as error:
            raise MirasolError(
                f"{self.name}: cannot be opened: {reason(error)}. Is no other program using it? {_cameras()}"
            ) from error

    def __iter__(self) -> Iterator[Chunk]:
        threading.Thread(target=self._read, daemon=True).start()
        index, owed, connection = 0, 0, 0
        try:
            while True:
                patience = self._patience if index == 0 else self.chunk_seconds + (0 if owed else LATE)
                arrived = self._next(patience)
                if arrived is None:
                    if self._ended or index == 0:
                        break
                    owed, (video, samples) = owed + 1, (None, None)
                else:
                    if arrived[0] != connection:
                        connection, owed = arrived[0], 0
                    if owed:  # an empty chunk has taken its place
                        owed -= 1
                        continue
                    video, samples = arrived[1]
                edges = [chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (index, index + 1)]
                samples = fit(samples, edges[1] - edges[0])
                yield Chunk(index, (index + 1) * self.chunk_seconds, video, samples)
                index += 1
        finally:
            self._stopped = True
        if self._fault is not None:
            raise self._fault
        if index == 0:
            raise MediaError(f"{self.name}: no chunk came{f': {self._wrong}' if self._wrong else ''}")

    def _next(self, seconds: float) -> tuple[int, MediaChunk] | None:
        with self._change:
            self._change.wait_for(lambda: self._arrived or self._ended, seconds)
            return self._arrived.popleft() if self._arrived else None

    # All that follows runs in the reading thread.

    def _read(self) -> None:
        connection, container = 0, self._container
        try:
            while container is not None:
                try:
                    self._follow(container, connection)
                except (MediaError, *UNUSABLE) as error:
                    self._wrong = reason(error)
                finally:
                    container.close()
                connection += 1
                container = self._reconnect()
        except Exception as error:
            self._fault = error
        with self._change:
            self._ended = True
            self._change.notify()

    def _reconnect(self) -> Any:
        until = time.monotonic() + self._patience
        while not self._stopped and time.monotonic() < until:
            try:
                return self._open()
            except UNUSABLE as error:
                self._wrong = reason(error)
            time.sleep(min(RETRY_SECONDS, self._patience))
        return None

    def _follow(self, container: Any, connection: int) -> None:
        video, audio = streams_of(container)
        used = [stream for stream in (video, audio) if stream is not None]
        if not used:
            raise MediaError("it brings no video and no sound that can be decoded")
        if video is not None:
            check_pixels(Path(self.name), video.codec_context.width, video.codec_context.height)
        timeline = _Timeline(self, video, audio)
        for packet in container.demux(used):
            try:
                frames = packet.decode()
            except UNUSABLE as error:  # one damaged packet: the next may be good
                self._wrong = reason(error)
                continue
            for frame in frames:
                if timeline.jumps(frame):
                    self._put(connection, timeline.rest())
                    timeline = _Timeline(self, video, audio)
                timeline.push(frame, packet.stream is video)
            self._put(connection, timeline.complete())
            if self._stopped:
                return
        self._put(connection, timeline.rest())

    def _put(self, connection: int, chunks: Iterator[MediaChunk]) -> None:
        for chunk in chunks:
            with self._change:
                if len(self._arrived) == WAITING:
                    self._arrived.popleft()
                    self.dropped += 1
                self._arrived.append((connection, chunk))
                self._change.notify()


class _Timeline:
    """Turns the frames of one unbroken stretch of time into chunks, by the loader's rules."""

    def __init__(self, source: LiveSource, video: Any, audio: Any) -> None:
        self.clip, self.seconds = source.clip, source.chunk_seconds
        arguments = (Path(source.name), 0.0, float("inf"), self.seconds, self.clip)
        self.video = StreamFrameResampler(*arguments) if video is not None else None
        self.audio = StreamAudioResampler(*arguments) if audio is not None else None
        if self.video is not None:
            self.video.rate = video.average_rate or video.guessed_rate
            self.video.aspect = video.sample_aspect_ratio or 1
        self.origin: float | None = None
        self.newest = 0.0
        self.given = 0

    def jumps(self, frame: Any) -> bool:
        """Whether the time of ``frame`` is unrelated to the times before it."""
        return self.origin is not None and frame.time is not None and abs(frame.time - self.newest) > GAP

    def push(self, frame: Any, is_video: bool) -> None:
        """Place the next decoded frame."""
        if frame.time is not None:
            self.newest = frame.time
        if self.origin is None:
            self.origin = self.newest
        resampler = self.video if is_video else self.audio
        if resampler is not None:
            resampler.push(frame, self.origin)

    def complete(self) -> Iterator[MediaChunk]:
        """Chunks that are complete, or that have waited too long for one modality."""
        while True:
            end = (self.given + 1) * self.seconds
            video, audio = self._video_ready(), self.audio is not None and self.audio.ready_at(end)
            late = self.audio is not None and self.audio.ready_at(end + LATE)
            late = late or (self.video is not None and self.video.covered > end + LATE)
            if not ((video or self.video is None) and (audio or self.audio is None)):
                audio = audio or self._audio_covers()
                if not (late and (video or audio)):
                    return
            yield self._take(video, audio)

    def rest(self) -> Iterator[MediaChunk]:
        """Chunks left at the end of the stream that are covered by half or more."""
        for resampler in (self.video, self.audio):
            if resampler is not None:
                resampler.finish()
        while True:
            video, audio = self._video_ready(), self._audio_covers()
            if not (video or audio):
                return
            yield self._take(video, audio)

    def _video_ready(self) -> bool:
        video = self.video
        while video is not None and video.taken < self.given and video.ready():
            video.take()  # of a chunk that went without it
        return video is not None and video.taken == self.given and video.ready()

    def _audio_covers(self) -> bool:
        """Whether sound covers half of the next chunk."""
        return self.audio is not None and self.audio.covered >= (self.given + 0.5) * self.seconds

    def _take(self, with_video: bool, with_audio: bool) -> MediaChunk:
        low, high = (chunk_edge(i, self.seconds, self.clip.sample_rate) for i in (self.given, self.given + 1))
        frames = self.video.take() if with_video and self.video is not None else None
        samples = self.audio.take(low, high) if self.audio is not None else None
        self.given += 1
        return frames, sixteen_bits(samples) if with_audio and samples is not None else None


def shown(address: str) -> str:
    """``address`` without the name, the password and the query in it: some cameras want a password in each."""
    if not address.startswith(SCHEMES):
        return address
    return re.sub(r"\?.*", "?…", re.sub(r"//[^/?#]*@", "//", address))  # up to the last @, as FFmpeg reads it


def _cameras() -> str:
    found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
    return f"Cameras here: {found or 'none'}"


def _open(address: str) -> Any:
    limits = decoder_options()
    if address.startswith(SCHEMES):
        options = limits | {"rtsp_transport": "tcp", "protocol_whitelist": PROTOCOLS, "analyzeduration": ANALYSED}
        return av.open(address, options=options, timeout=READ_SECONDS, **ANY_TAGS)
    return av.open(address, format="v4l2", options=limits, timeout=READ_SECONDS)
