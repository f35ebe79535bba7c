"""Sources without an end: a camera or an RTSP address, and the built-in world.

A camera is late, it stops, it comes back, and the stream goes on. A thread reads and decodes, so that nothing waits
for the model; what the model has no time for is dropped, oldest first, and counted. Frames and sound are placed by
their time stamps with the loader's rules, whatever the frame rate does. Where a chunk does not come, an empty one takes
its place in time.
"""

from __future__ import annotations

import collections
import itertools
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.data.world.scene import sample_clip
from mirasol.data.world.video import encode
from mirasol.media.clip import ClipSpec
from mirasol.media.container import UNUSABLE, MediaError, check_pixels, decoder_options, reason, streams_of
from mirasol.media.log_mel import chunk_edge
from mirasol.runtime.sources.files import Chunk, FileSource, Source, fit, joined, open_source, sixteen_bits
from mirasol.runtime.sources.resample import Frames, Samples, StreamPictures, StreamSound

SYNTHETIC = "synthetic"
SCHEMES = ("rtsp://", "rtsps://")
PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto"
ANALYSED = "1000000"  # microseconds of an address that FFmpeg looks at before it gives anything: they come at once
READ_SECONDS = 5.0  # without a packet: the connection is given up and made anew
RETRY_SECONDS = 2.0  # between two attempts
PATIENCE = 60.0  # seconds without a connection until the stream has ended
LATE = 1.0  # seconds: how late a chunk, or one of its modalities beside the other, may be
GAP = 5.0  # seconds between two time stamps, forward or back: a new beginning
WAITING = 8  # chunks that wait for the model before the oldest is dropped

Open = Callable[[], Any]


class _Arrived(NamedTuple):
    connection: int  # chunks of one connection have even times
    video: Frames | None
    samples: Samples | None


class LiveSource:
    """The chunks of a camera device (``/dev/video0``, pictures only) or of an RTSP address.

    Args:
        address: the device or the address; a name and a password in it are never shown.
        clip: how the model's clips are cut.
        open_container: opens it; for tests.
        patience: seconds without a connection until the stream ends.

    An error while it is read that is none of the camera's ends the stream and is raised.

    Raises:
        MirasolError: it cannot be opened, or the model spreads its chunks over a whole file.
    """

    def __init__(
        self, address: str, clip: ClipSpec, *, open_container: Open | None = None, patience: float = PATIENCE
    ) -> None:
        self.name, self.clip, self.chunk_seconds = shown(address), clip, clip.chunk_seconds
        if clip.sampling == "spread":
            raise MirasolError(
                f"{self.name}: the model looks at chunks that are spread over a whole file: name one file"
            )
        self.dropped = 0  # chunks that the model had no time for
        self._open = open_container or (lambda: _open(address))
        self._patience = patience
        self._arrived: collections.deque[_Arrived] = collections.deque()
        self._change = threading.Condition()
        self._ended = self._stopped = False
        self._wrong = ""
        self._fault: Exception | None = None  # of the thread that reads: what a camera cannot be blamed for
        try:
            self._container = self._open()
        except UNUSABLE as error:
            raise MirasolError(
                f"{self.name}: cannot be opened: {reason(error)}. Is it there, and is no other program using it?"
            ) from error

    def __iter__(self) -> Iterator[Chunk]:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        index, owed, connection = 0, 0, 0
        try:
            while True:
                patience = self._patience if index == 0 else self.chunk_seconds + (0 if owed else LATE)
                arrived = self._next(patience)
                if arrived is None and (self._ended or index == 0):
                    break
                if arrived is not None and arrived.connection != connection:
                    connection, owed = arrived.connection, 0
                if arrived is None:
                    owed += 1
                elif owed:  # its place was given to an empty one
                    owed -= 1
                    continue
                edges = [chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (index, index + 1)]
                samples = fit(arrived.samples if arrived else None, edges[1] - edges[0])
                yield Chunk(index, (index + 1) * self.chunk_seconds, arrived.video if arrived else None, samples)
                index += 1
        finally:
            self._stopped = True
        if self._fault is not None:
            raise self._fault
        if index == 0:
            raise MediaError(f"{self.name}: no chunk came{f': {self._wrong}' if self._wrong else ''}")

    def _next(self, seconds: float) -> _Arrived | None:
        with self._change:
            self._change.wait_for(lambda: self._arrived or self._ended, seconds)
            return self._arrived.popleft() if self._arrived else None

    # What follows runs in the thread that reads.

    def _read(self) -> None:
        try:
            self._read_on()
        except Exception as error:
            self._fault = error
        with self._change:
            self._ended = True
            self._change.notify()

    def _read_on(self) -> None:
        connection, container = 0, self._container
        while container is not None:
            try:
                self._follow(container, connection)
            except (MediaError, *UNUSABLE) as error:
                self._wrong = reason(error)
            finally:
                container.close()
            connection += 1
            container = self._again()

    def _again(self) -> Any:
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
        cutter = _Cutter(self, video, audio)
        for packet in container.demux(used):
            try:
                frames = packet.decode()
            except UNUSABLE as error:  # one damaged packet: the next may be good
                self._wrong = reason(error)
                continue
            for frame in frames:
                if cutter.jumps(frame):
                    self._put(connection, cutter.rest())
                    cutter = _Cutter(self, video, audio)
                cutter.push(frame, packet.stream is video)
            self._put(connection, cutter.whole())
            if self._stopped:
                return
        self._put(connection, cutter.rest())

    def _put(self, connection: int, chunks: Iterator[tuple[Frames | None, Samples | None]]) -> None:
        for video, samples in chunks:
            with self._change:
                if len(self._arrived) == WAITING:
                    self._arrived.popleft()
                    self.dropped += 1
                self._arrived.append(_Arrived(connection, video, samples))
                self._change.notify()


class _Cutter:
    """Frames of one unbroken stretch of time to chunks, by the loader's rules."""

    def __init__(self, source: LiveSource, video: Any, audio: Any) -> None:
        self.clip, self.seconds = source.clip, source.chunk_seconds
        everything = (Path(source.name), 0.0, float("inf"), self.seconds, self.clip)
        self.pictures = StreamPictures(*everything) if video is not None else None
        self.sound = StreamSound(*everything) if audio is not None else None
        if self.pictures is not None:
            self.pictures.rate = video.average_rate or video.guessed_rate
            self.pictures.aspect = video.sample_aspect_ratio or 1
        self.origin: float | None = None
        self.newest = 0.0
        self.given = 0

    def jumps(self, frame: Any) -> bool:
        """Whether the time of ``frame`` has nothing to do with what came before."""
        return self.origin is not None and frame.time is not None and abs(frame.time - self.newest) > GAP

    def push(self, frame: Any, is_picture: bool) -> None:
        """Place the next decoded frame."""
        if frame.time is not None:
            self.newest = frame.time
        if self.origin is None:
            self.origin = self.newest
        sink = self.pictures if is_picture else self.sound
        if sink is not None:
            sink.push(frame, self.origin)

    def whole(self) -> Iterator[tuple[Frames | None, Samples | None]]:
        """Chunks that are complete, or that one modality has been without for too long."""
        while True:
            end = (self.given + 1) * self.seconds
            picture, sound = self._picture_ready(), self._sound_ready(end)
            late = self.sound is not None and self.sound.ready_at(end + LATE)
            late = late or (self.pictures is not None and self.pictures.covered > end + LATE)
            complete = (picture or self.pictures is None) and (sound or self.sound is None)
            if not complete:
                sound = sound or self._sound_covers()
                if not (late and (picture or sound)):
                    return
            yield self._take(picture, sound)

    def rest(self) -> Iterator[tuple[Frames | None, Samples | None]]:
        """What is left when the stream has stopped: chunks that are covered by half or more."""
        for sink in (self.pictures, self.sound):
            if sink is not None:
                sink.finish()
        while True:
            picture = self._picture_ready()
            sound = self._sound_covers()
            if not (picture or sound):
                return
            yield self._take(picture, sound)

    def _picture_ready(self) -> bool:
        pictures = self.pictures
        while pictures is not None and pictures.taken < self.given and pictures.ready():
            pictures.take()  # of a chunk that went without them
        return pictures is not None and pictures.taken == self.given and pictures.ready()

    def _sound_ready(self, end: float) -> bool:
        return self.sound is not None and self.sound.ready_at(end)

    def _sound_covers(self) -> bool:
        """Half of the next chunk."""
        return self.sound is not None and self.sound.covered >= (self.given + 0.5) * self.seconds

    def _take(self, picture: bool, sound: bool) -> tuple[Frames | None, Samples | None]:
        low, high = (chunk_edge(i, self.seconds, self.clip.sample_rate) for i in (self.given, self.given + 1))
        video = self.pictures.take() if picture and self.pictures is not None else None
        taken = self.sound.take(low, high) if self.sound is not None else None
        self.given += 1
        return video, sixteen_bits(taken) if sound and taken is not None else None


class SyntheticSource:
    """Clips of the built-in world one after another, without an end: something to stream where there is nothing.

    They are written and read as files, so that everything but a camera takes part.

    Raises:
        MirasolError: the model spreads its chunks over a whole file.
    """

    def __init__(self, clip: ClipSpec, seed: int = 0) -> None:
        self.clip, self.seed = clip, seed
        self.chunk_seconds = clip.chunk_seconds
        if clip.sampling == "spread":
            raise MirasolError("synthetic: the model looks at chunks that are spread over a whole file: name one file")

    def __iter__(self) -> Iterator[Chunk]:
        with tempfile.TemporaryDirectory(prefix="mirasol-synthetic-") as folder:
            yield from joined(self._clips(Path(folder) / "clip.mp4"), self.clip)

    def _clips(self, path: Path) -> Iterator[FileSource]:
        for index in itertools.count():
            path.write_bytes(encode(sample_clip(self.seed, "test", index)))
            yield FileSource(path, self.clip)


def open_stream(source: str | Path, clip: ClipSpec) -> Source:
    """What ``source`` names: a file, a folder, ``synthetic``, a camera device, or an RTSP address.

    Raises:
        MirasolError: it is none of these, cannot be opened, or holds nothing that can be decoded.
    """
    if str(source) == SYNTHETIC:
        return SyntheticSource(clip)
    return LiveSource(str(source), clip) if is_live(str(source)) else open_source(source, clip)


def is_live(source: str) -> bool:
    """Whether ``source`` names a camera device or an RTSP address."""
    return source.startswith((*SCHEMES, "/dev/video"))


def shown(address: str) -> str:
    """``address`` without the name and the password in it, and without its query: some cameras want them there."""
    if not address.startswith(SCHEMES):
        return address
    return re.sub(r"\?.*", "?…", re.sub(r"//[^/?#]*@", "//", address))  # up to the last @, as FFmpeg reads it


def _open(address: str) -> Any:
    limits = decoder_options()
    if address.startswith(SCHEMES):
        options = limits | {"rtsp_transport": "tcp", "protocol_whitelist": PROTOCOLS, "analyzeduration": ANALYSED}
        return av.open(address, options=options, timeout=READ_SECONDS, metadata_errors="ignore")
    return av.open(address, format="v4l2", options=limits, timeout=READ_SECONDS)


def seconds_of(text: str) -> float:
    """``2``, ``2s``, ``500ms`` or ``1m`` in seconds.

    Raises:
        ValueError: none of these, or not more than 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|)", text.strip())
    value = float(found[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}[found[2]] if found else 0.0
    if not (value > 0 and np.isfinite(value)):
        raise ValueError(f"{text!r} is no time: expected one like 2s, 500ms or 1m")
    return value
