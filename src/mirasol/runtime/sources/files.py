"""Chunks of a media file in presentation order, or of a folder of files.

Memory stays bounded: a source decodes no further than the next chunk. Video and audio are read through two handles,
so that bad interleaving costs reading and not memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
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
from mirasol.runtime.features import Frames, Samples
from mirasol.runtime.sources.resample import StreamAudioResampler, StreamFrameResampler

RUN_UP = 0.25  # seconds decoded before the start: audio decoders need it
FULL_SCALE = 32768.0
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a Path has lost the second slash
NAMED = 5  # files in a sentence
SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus"}

log = logging.getLogger("mirasol.runtime")  # warnings go to stderr unless a program says otherwise


@dataclass(frozen=True)
class Chunk:
    """Frames and samples of one stretch of time; ``None`` for a missing modality."""

    index: int
    end: float  # seconds from the start of the source
    video: Frames | None  # [K, size*3/2, size]
    samples: Samples | None  # [S]


class Source(Protocol):
    """Chunks in order."""

    chunk_seconds: float  # for the session that takes them

    def __iter__(self) -> Iterator[Chunk]:
        """All chunks, from the first."""


class FileSource:
    """The chunks of one media file, equal to the loader's.

    A chunk counts as present when the media cover half of it or more; the first must be covered whole.

    Args:
        path: a local media file.
        clip: how the model's clips are cut.
        start: begin of the stream in seconds; None for the beginning of the file.
        end: end of the stream; None for the end of the file.

    Raises:
        MediaError: the file is missing, not a media file, or holds neither video nor audio.
    """

    def __init__(self, path: str | Path, clip: ClipSpec, start: float | None = None, end: float | None = None) -> None:
        self.path, self.clip = Path(path), clip
        self.wrong = ""  # the first decoding error, known after the last chunk
        self.begin = start or 0.0
        info = probe(self.path)
        if not (info.has_video or info.has_audio):
            raise MediaError(f"{self.path}: holds no video and no audio that can be decoded")
        self.length = math.inf if end is None else end - self.begin
        self.stated = min(self.length, info.duration - self.begin) if info.duration else 0.0  # seconds, 0: unknown
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
        video = _Reader(self.path, self.begin, lambda: StreamFrameResampler(*arguments), "video")
        audio = _Reader(self.path, self.begin, lambda: StreamAudioResampler(*arguments), "audio")
        with contextlib.closing(video), contextlib.closing(audio):
            yield from self._chunks(video, audio)

    def _chunks(self, video: _Reader, audio: _Reader) -> Iterator[Chunk]:
        index = 0
        last = math.floor(self.length / self.chunk_seconds + 0.5) if math.isfinite(self.length) else math.inf
        while index < last:
            low, high = (chunk_edge(i, self.chunk_seconds, self.clip.sample_rate) for i in (index, index + 1))
            frames = samples = None
            if video.read_until(lambda frames: frames.ready()):
                frames = video.resampler.take()
            elif audio.resampler is not None:
                audio.resampler.check_silence(low)
            end = high / self.clip.sample_rate
            if audio.read_until(lambda sound, end=end: sound.ready_at(end)) or self._covered(audio, index):
                samples = sixteen_bits(audio.resampler.take(low, high))
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
        return audio.resampler is not None and math.floor(audio.resampler.covered / self.chunk_seconds + 0.5) > index

    def _check_first(self, video: _Reader, audio: _Reader) -> None:
        if not (video.ended and audio.ended):
            return
        covered = max((r.resampler.covered for r in (video, audio) if r.resampler is not None), default=0.0)
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
    """The media files of a folder as one stream in the order of their names: a recorder's segments.

    A file that cannot be used is left out, a truncated one is used as far as it goes; warnings of the logger
    ``mirasol.runtime`` name each, and count them at the end. Raises MirasolError if the folder holds no usable media
    file, or the model spreads its chunks over a whole file.
    """

    def __init__(self, folder: str | Path, clip: ClipSpec) -> None:
        self.folder, self.clip = Path(folder), clip
        self.chunk_seconds = clip.chunk_seconds
        refuse_spread(folder, clip)
        self.files = sorted(f for f in self.folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
        if not self.files:
            raise MirasolError(f"{folder}: holds no media file (looked for {', '.join(sorted(SUFFIXES))})")

    def __iter__(self) -> Iterator[Chunk]:
        skipped: dict[str, str] = {}  # name -> reason
        damaged: dict[str, str] = {}
        yield from joined((self._usable(file, skipped, damaged) for file in self.files), self.clip)
        of = f"of {len(self.files)} files were"
        if len(skipped) == len(self.files):
            why = "; ".join(f"{name}: {wrong}" for name, wrong in list(skipped.items())[:NAMED])
            raise MirasolError(f"{self.folder}: none of its {len(skipped)} media files can be used: {why}")
        for files, state in ((skipped, "skipped"), (damaged, "damaged, and used as far as they go")):
            if files:
                more = ", …" if len(files) > NAMED else ""
                log.warning("%d %s %s: %s%s", len(files), of, state, ", ".join(list(files)[:NAMED]), more)

    def _usable(self, file: Path, skipped: dict[str, str], damaged: dict[str, str]) -> Iterator[Chunk]:
        """The chunks of ``file`` up to its first fatal error."""
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
    """The chunks of ``sources``, numbered and timed as one stream."""
    index = 0
    for source in sources:
        for chunk in source:
            low, high = (chunk_edge(i, clip.chunk_seconds, clip.sample_rate) for i in (index, index + 1))
            samples = fit(chunk.samples, high - low)
            yield replace(chunk, index=index, end=(index + 1) * clip.chunk_seconds, samples=samples)
            index += 1


def fit(samples: Samples | None, wanted: int) -> Samples | None:
    """Add or drop a sample, where a chunk is not a whole number of samples."""
    return None if samples is None else np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]


def sixteen_bits(samples: Samples) -> Samples:
    """Round to 16 bits, as the shards that the model was trained on; NaN becomes 0."""
    finite = np.nan_to_num(samples, posinf=1, neginf=-1)
    rounded: Samples = np.clip(np.rint(finite * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return np.asarray(rounded / FULL_SCALE, np.float32)


def refuse_spread(name: str | Path, clip: ClipSpec) -> None:
    """Raise MirasolError if the model spreads its chunks over a whole file: source ``name`` has no known end."""
    if clip.sampling == "spread":
        raise MirasolError(f"{name}: the model looks at chunks that are spread over a whole file: name one file")


def open_source(path: str | Path, clip: ClipSpec) -> Source:
    """Open a file or a folder; raises MirasolError if it is neither, or holds nothing that can be decoded."""
    address = ADDRESS.match(str(path))
    if address and not Path(path).exists():  # never shows the rest: it may hold a password
        raise MirasolError(
            f"{address[1]}://…: of addresses only rtsp:// and rtsps:// can be streamed, and only by `mirasol stream`. "
            "Download this one, or record it, say with `ffmpeg -i ADDRESS -c copy clip.mkv`, and name the file"
        )
    return FolderSource(path, clip) if Path(path).is_dir() else FileSource(path, clip)


class _Reader:
    """Decodes one stream of a file into its resampler, frame by frame, no further than needed."""

    def __init__(self, path: Path, begin: float, make_resampler: Any, kind: str) -> None:
        self.resampler: Any = None
        self._frames: Any = None
        self.ended = False
        self.wrong = ""  # the first decoding error
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
        for seek in seeks:  # from the beginning, if the first one went too far
            self.resampler = make_resampler()
            if kind == "video":
                self.resampler.rate = stream.average_rate or stream.guessed_rate
                self.resampler.aspect = stream.sample_aspect_ratio or 1
            self._frames = self._decode(stream, seek)
            self._push_next()
            if not self.resampler.late:
                break

    def read_until(self, enough: Any) -> bool:
        """Decode until the resampler has enough or the stream ends; returns whether it has enough."""
        if self.resampler is None:
            return False
        while not enough(self.resampler) and not self.ended:
            if self.resampler.done:
                self._end()
            else:
                self._push_next()
        return bool(enough(self.resampler))

    def close(self) -> None:
        """Close the file, and free the decoder now: its generator and this object refer to each other."""
        if self._frames is not None:
            self._frames.close()
        self._container.close()
        del self._frames, self._container, self.resampler

    def _push_next(self) -> None:
        frame = next(self._frames, None)
        if frame is None:
            self._end()
        else:
            self._place(self.resampler.push, frame, self._origin)

    def _end(self) -> None:
        self.ended = True
        self._place(self.resampler.finish)

    def _place(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a method of the resampler; what it cannot use is recorded, as what cannot be decoded."""
        try:
            function(*arguments)
        except UNUSABLE as error:
            self.wrong = self.wrong or reason(error)

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
