"""Where chunks come from: a file, read as its presentation time goes, or a folder of files in order.

Memory is bounded whatever the length: a source decodes no further than the chunk that is asked for. The
picture and the sound are read through two handles, so that a file that interleaves them badly costs
reading and not memory.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.media.container import UNUSABLE, MediaError, check_pixels, open_media, origin_of, reason, streams_of
from mirasol.media.decode import probe
from mirasol.media.log_mel import chunk_edge
from mirasol.runtime.sources.resample import Frames, Samples, StreamPictures, StreamSound

RUN_UP = 0.25  # seconds decoded before the start: audio decoders need it
FULL_SCALE = 32768.0
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a Path has lost the second slash
NAMED = 5  # files in a sentence
SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus"}

log = logging.getLogger("mirasol.runtime")  # warnings go to stderr unless a program says otherwise


@dataclass(frozen=True)
class Chunk:
    """What a session takes: frames and samples of the same time limits, ``None`` where there are none."""

    index: int
    end: float  # seconds from the start of the source
    video: Frames | None  # [K, size*3/2, size]
    samples: Samples | None  # [S]


class Source(Protocol):
    """Chunks in order; ``chunk_seconds`` is what a session over it must be told."""

    chunk_seconds: float

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, from the first one."""


class FileSource:
    """The chunks of one media file, equal to what the loader makes of the same file.

    A chunk counts as present when the media cover half of it or more; the first must be covered whole.

    Args:
        path: a local media file.
        clip: how the model's clips are cut.
        start: where the stream begins, in seconds; None for the beginning.
        end: where it ends; None for the end of the file.

    Raises:
        MediaError: no such file, no media file, no picture and no sound in it.
    """

    def __init__(self, path: str | Path, clip: ClipSpec, start: float | None = None, end: float | None = None) -> None:
        self.path, self.clip = Path(path), clip
        self.wrong = ""  # what could not be decoded, known when the chunks have ended
        self.begin = start or 0.0
        info = probe(self.path)
        if not (info.has_video or info.has_audio):
            raise MediaError(f"{self.path}: holds no video and no audio that can be decoded")
        self.length = math.inf if end is None else end - self.begin
        self.chunk_seconds = clip.chunk_seconds
        if clip.sampling == "spread":
            if info.duration is None:
                raise MediaError(
                    f"{self.path}: does not say how long it is, but the model looks at {clip.chunks} chunks that are "
                    "spread over the whole: write it to a file that states its duration, such as mp4"
                )
            self.length = min(self.length, info.duration - self.begin)
            self.chunk_seconds = self.length / clip.chunks
        if self.length < self.chunk_seconds * (1 - 0.5 / clip.frames_per_chunk):
            raise MediaError(
                f"{self.path}: {max(0.0, self.length):.3g} s are asked for, one chunk is {self.chunk_seconds:.3g} s"
            )

    def __iter__(self) -> Iterator[Chunk]:
        arguments = (self.path, self.begin, self.length, self.chunk_seconds, self.clip)
        video = _Reader(self.path, self.begin, lambda: StreamPictures(*arguments), "video")
        audio = _Reader(self.path, self.begin, lambda: StreamSound(*arguments), "audio")
        try:
            yield from self._chunks(video, audio)
        finally:
            video.close()
            audio.close()

    def _chunks(self, video: _Reader, audio: _Reader) -> Iterator[Chunk]:
        index = 0
        last = math.floor(self.length / self.chunk_seconds + 0.5) if math.isfinite(self.length) else math.inf
        while index < last:
            low, high = (chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (index, index + 1))
            frames = samples = None
            if video.read_until(lambda sink: sink.ready()):
                frames = video.sink.take()
            elif audio.sink is not None:
                audio.sink.check_silence(low)
            if audio.read_until(lambda sink, high=high: sink.ready(high)) or self._covered(audio, index):
                samples = sixteen_bits(audio.sink.take(low, high))
            if frames is None and samples is None:
                break
            if index == 0:
                self._check_first(video, audio)
            yield Chunk(index, (index + 1) * self.chunk_seconds, frames, samples)
            index += 1
        if index == 0:
            self._check_first(video, audio)
        self.wrong = video.wrong or audio.wrong

    def _covered(self, audio: _Reader, index: int) -> bool:
        return audio.sink is not None and math.floor(audio.sink.covered / self.chunk_seconds + 0.5) > index

    def _check_first(self, video: _Reader, audio: _Reader) -> None:
        if not (video.ended and audio.ended):
            return
        covered = max((reader.sink.covered for reader in (video, audio) if reader.sink is not None), default=0.0)
        wrong = video.wrong or audio.wrong
        because = f" ({wrong})" if wrong else ""
        if covered <= 0:
            raise MediaError(f"{self.path}: nothing in it can be decoded{because}")
        if covered < self.chunk_seconds * (1 - 0.5 / self.clip.frames_per_chunk):
            raise MediaError(
                f"{self.path}: {covered:.3g} s can be used, shorter than one chunk of {self.chunk_seconds:.3g} s"
                f"{because}"
            )


class FolderSource:
    """The media files of a folder in the order of their names, as one stream: a recorder's segments.

    A file that cannot be used is left out, and one that breaks off is used as far as it goes; both are named in
    warnings of the logger ``mirasol.runtime``, and counted at the end.

    Raises:
        MirasolError: the folder holds no media file, or none that can be used (known when the chunks are asked for),
            or the model spreads its chunks over a whole file.
    """

    def __init__(self, folder: str | Path, clip: ClipSpec) -> None:
        self.folder, self.clip = Path(folder), clip
        self.chunk_seconds = clip.chunk_seconds
        if clip.sampling == "spread":
            raise MirasolError(f"{folder}: the model looks at chunks that are spread over a whole file: name one file")
        self.files = sorted(f for f in self.folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
        if not self.files:
            raise MirasolError(f"{folder}: holds no media file (looked for {', '.join(sorted(SUFFIXES))})")

    def __iter__(self) -> Iterator[Chunk]:
        skipped: dict[str, str] = {}  # why, by name
        damaged: dict[str, str] = {}
        yield from joined((self._usable(file, skipped, damaged) for file in self.files), self.clip)
        of = f"of {len(self.files)} files were"
        if len(skipped) == len(self.files):
            why = "; ".join(f"{name}: {wrong}" for name, wrong in list(skipped.items())[:NAMED])
            raise MirasolError(f"{self.folder}: none of its {len(skipped)} media files can be used: {why}")
        for files, what in ((skipped, "skipped"), (damaged, "damaged, and used as far as they go")):
            if files:
                more = ", …" if len(files) > NAMED else ""
                log.warning("%d %s %s: %s%s", len(files), of, what, ", ".join(list(files)[:NAMED]), more)

    def _usable(self, file: Path, skipped: dict[str, str], damaged: dict[str, str]) -> Iterator[Chunk]:
        """The chunks of ``file`` as far as they can be had."""
        count = 0
        try:
            source = FileSource(file, self.clip)
            for chunk in source:
                yield chunk
                count += 1
            wrong = source.wrong
        except (MediaError, *UNUSABLE) as error:
            wrong = reason(error).removeprefix(f"{file}: ")
        if wrong:
            log.warning("%s: %s: %s", file, f"damaged, {count} chunks of it were used" if count else "skipped", wrong)
            (damaged if count else skipped)[file.name] = wrong


def joined(sources: Iterable[Iterable[Chunk]], clip: ClipSpec) -> Iterator[Chunk]:
    """The chunks of ``sources`` as those of one stream."""
    index = 0
    for source in sources:
        for chunk in source:
            low, high = (chunk_edge(i, clip.chunk_seconds, clip.sample_rate) for i in (index, index + 1))
            samples = fit(chunk.samples, high - low)
            yield replace(chunk, index=index, end=(index + 1) * clip.chunk_seconds, samples=samples)
            index += 1


def fit(samples: Samples | None, wanted: int) -> Samples | None:
    """A sample more or less, where chunks are no whole number of samples."""
    return None if samples is None else np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]


def sixteen_bits(samples: Samples) -> Samples:
    """Rounded as shards store them: the model has heard no other. What is no number is silence."""
    finite = np.nan_to_num(samples, posinf=1, neginf=-1)
    rounded: Samples = np.clip(np.rint(finite * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return np.asarray(rounded / FULL_SCALE, np.float32)


def open_source(path: str | Path, clip: ClipSpec) -> Source:
    """A file or a folder as a source.

    Raises:
        MirasolError: it is neither, or holds nothing that can be decoded.
    """
    address = ADDRESS.match(str(path))
    if address and not Path(path).exists():  # the rest of it may hold a password
        raise MirasolError(
            f"{address[1]}://…: of addresses only rtsp:// and rtsps:// can be streamed, and only by `mirasol stream`. "
            "Download this one, or record it, say with `ffmpeg -i ADDRESS -c copy clip.mkv`, and name the file"
        )
    return FolderSource(path, clip) if Path(path).is_dir() else FileSource(path, clip)


class _Reader:
    """Decodes one stream of a file into its sink, frame by frame, as far as is asked for."""

    def __init__(self, path: Path, begin: float, make_sink: Any, kind: str) -> None:
        self.sink: Any = None
        self._frames: Any = None
        self.ended = False
        self.wrong = ""  # what could not be decoded
        self._container = open_media(path)
        self._origin = origin_of(self._container)
        video, audio = streams_of(self._container)
        stream = video if kind == "video" else audio
        if stream is None:
            self.ended = True
            return
        stream.codec_context.thread_count = 1
        if kind == "video":
            check_pixels(path, stream.codec_context.width, stream.codec_context.height)
        seeks = (begin - RUN_UP, 0.0) if begin > 2 * RUN_UP else (None,)
        for seek in seeks:  # where the first one went too far: from the beginning
            self.sink = make_sink()
            if kind == "video":
                self.sink.rate = stream.average_rate or stream.guessed_rate
                self.sink.aspect = stream.sample_aspect_ratio or 1
            self._frames = self._decode(stream, seek)
            self._push_next()
            if not self.sink.late:
                break

    def read_until(self, enough: Any) -> bool:
        """Decode until the sink has enough, and whether it has; at the end of the stream it is finished."""
        if self.sink is None:
            return False
        while not enough(self.sink) and not self.ended:
            if self.sink.done:
                self._end()
            else:
                self._push_next()
        return bool(enough(self.sink))

    def close(self) -> None:
        """Close the file, and let go of the decoder now: its generator holds this object, and this object it."""
        if self._frames is not None:
            self._frames.close()
        self._container.close()
        del self._frames, self._container, self.sink

    def _push_next(self) -> None:
        frame = next(self._frames, None)
        if frame is None:
            self._end()
        else:
            self.sink.push(frame, self._origin)

    def _end(self) -> None:
        self.ended = True
        self.sink.finish()

    def _decode(self, stream: Any, seek: float | None) -> Iterator[Any]:
        try:
            if seek is not None:
                self._container.seek(int((self._origin + seek) * av.time_base), backward=True)
            for packet in self._container.demux(stream):
                try:
                    yield from packet.decode()
                except UNUSABLE as error:  # one damaged packet: the next may be good
                    self.wrong = self.wrong or f"{stream.type}: {reason(error)}"
        except UNUSABLE as error:
            self.wrong = self.wrong or reason(error)
