"""Parts: the clips of one source file that are made together, from one pass over it.

A part is the unit of making, keeping and making again. Its bytes follow from its source, its spans, the settings,
the code and the library versions, and from no other part: so parts may be made in any order, by any process, and
kept from run to run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from mirasol.core.code import CLIPS, code_hash
from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Clip
from mirasol.data.shards.codec import conforms, copy_videos, pack_audio, pack_video
from mirasol.data.storage import Identity, is_url, local_file
from mirasol.media.clip import ClipSpec
from mirasol.media.container import UNUSABLE, MediaError, open_media, reason
from mirasol.media.decode import DecodedClip, Span, decode_beside_copies, decode_clips
from mirasol.media.sandbox import sandboxed

FORMAT = "mirasol-shards-1"
JOB_CLIPS = 2  # handed over at a time where sources are short: more, and the last job of a run is waited for
PART_CLIPS = 32  # their frames are in memory at once; a source with more is read in slices of its time
SILENT_PEAK = 1e-4  # below -80 dB of full scale, the floor of the features


@dataclass(frozen=True)
class SourceSlice:
    """Spans of one source, by their start."""

    media: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class EncodedClip:
    """A span as it goes into a tar, or why it does not."""

    files: dict[str, bytes]  # by extension, in the order of the tar
    facts: dict[str, Any]  # what its JSON says of it, whoever asks about it
    rejected: str = ""

    @property
    def final(self) -> bool:
        """Whether making it again would give no more. What has failed may have failed for want of memory or time."""
        return not self.rejected and not self.facts["partial"]


@dataclass(frozen=True)
class Job:
    """Parts for one process, and all it needs to make them."""

    data_dir: Path
    parts: tuple[SourceSlice, ...]
    clip: ClipSpec
    crf: int
    code: str


def parts_of(clips: Iterable[Clip]) -> tuple[list[SourceSlice], dict[tuple[str, Span], tuple[int, int]]]:
    """The parts in the order of their first clip, and where each (media, span) lies: number of the part and index.

    All spans of a source are brought together, wherever the manifest has them, and a span stands once, however
    many splits want it: so a source is decoded about once.
    """
    spans_of: dict[str, dict[Span, None]] = {}
    for clip in clips:
        spans_of.setdefault(clip.media, {})[clip.start, clip.end] = None
    parts: list[SourceSlice] = []
    places: dict[tuple[str, Span], tuple[int, int]] = {}
    for media, spans in spans_of.items():
        ordered = sorted(spans, key=lambda span: (span[0] or 0.0, math.inf if span[1] is None else span[1]))
        for low in range(0, len(ordered), PART_CLIPS):
            part = SourceSlice(media, tuple(ordered[low : low + PART_CLIPS]))
            places |= {(media, span): (len(parts), index) for index, span in enumerate(part.spans)}
            parts.append(part)
    return parts, places


def part_name(part: SourceSlice, identity: Identity | None, clip: ClipSpec, crf: int) -> str:
    """A name that differs whenever anything differs that the part's bytes follow from: 64 hexadecimal characters."""
    recipe = [part.media, identity, part.spans, dataclasses.asdict(clip), crf, code_fingerprint()]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


def jobs_of(
    data_dir: Path, parts: Mapping[int, SourceSlice], clip: ClipSpec, crf: int
) -> Iterator[tuple[list[int], Job]]:
    """Numbers of the parts of each job, and the job. What lies behind a URL is fetched by one job only."""
    numbers: list[int] = []
    clips = 0
    for number, part in parts.items():
        fetched = bool(numbers) and is_url(part.media) and parts[numbers[-1]].media == part.media
        if clips >= JOB_CLIPS and not fetched:
            yield numbers, Job(data_dir, tuple(parts[n] for n in numbers), clip, crf, code_fingerprint())
            numbers, clips = [], 0
        numbers.append(number)
        clips += len(part.spans)
    if numbers:
        yield numbers, Job(data_dir, tuple(parts[n] for n in numbers), clip, crf, code_fingerprint())


def make_job(job: Job) -> list[list[EncodedClip]]:
    """Every part of a job.

    Raises:
        MirasolError: this process has other code or libraries than the one that asks, or a store of media
            cannot be read.
    """
    if job.code != code_fingerprint():
        raise MirasolError(
            "a worker has other code or other libraries than this process, so its clips would be other bytes: install "
            f"the same mirasol and the same packages on every machine (here {code_fingerprint()}, there {job.code})"
        )
    made: list[list[EncodedClip]] = []
    for media, run in itertools.groupby(job.parts, key=lambda part: part.media):
        parts = list(run)
        try:
            with local_file(job.data_dir, media) as path:
                made += [_make_guarded(path, part, job.clip, job.crf) for part in parts]
        except (FileNotFoundError, PermissionError) as error:  # of a store: local files are opened by the decoder
            why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be fetched: {reason(error)}"
            made += [[EncodedClip({}, {}, why)] * len(part.spans) for part in parts]
    return made


def _make_guarded(path: Path, part: SourceSlice, spec: ClipSpec, crf: int) -> list[EncodedClip]:
    """:func:`make_part` of a file that may crash or hang the decoder: then it is rejected, and the run goes on."""
    try:
        return sandboxed(make_part, path, part, spec, crf)
    except MediaError as error:
        return [EncodedClip({}, {}, str(error).replace(str(path), part.media))] * len(part.spans)


def make_part(path: Path, part: SourceSlice, spec: ClipSpec, crf: int) -> list[EncodedClip]:
    """The spans of a part from its source, which lies at ``path``.

    Packets that conform are copied, all else is decoded, once for all the spans, and encoded.
    """
    packed: list[tuple[bytes | None, DecodedClip | MediaError]]
    try:
        with open_media(path) as opened:
            if conforms(opened, spec):
                packed = _copied_or_decoded(path, opened, part.spans, spec)
            else:
                packed = [(None, clip) for clip in decode_clips(path, part.spans, spec, opened)]
    except MediaError as error:
        packed = [(None, error)] * len(part.spans)
    except UNUSABLE as error:
        packed = [(None, MediaError(f"cannot be decoded: {reason(error)}"))] * len(part.spans)
    made = []
    for mp4, result in packed:
        if isinstance(result, MediaError):
            made.append(EncodedClip({}, {}, str(result).removeprefix(f"{path}: ").replace(str(path), part.media)))
        else:
            made.append(_pack(mp4, result, spec, crf, result.partial.replace(str(path), part.media)))
    return made


def _copied_or_decoded(
    path: Path, opened: InputContainer, spans: Sequence[Span], spec: ClipSpec
) -> list[tuple[bytes | None, DecodedClip | MediaError]]:
    """Packets of the clips that conform, and the sound beside them; of the others ``None``, and what is decoded."""
    copies = copy_videos(opened, spans, spec)
    copied = [start for (start, _), mp4 in zip(spans, copies, strict=True) if mp4 is not None]
    rest = [span for span, mp4 in zip(spans, copies, strict=True) if mp4 is None]
    beside = iter(decode_beside_copies(path, copied, spec))
    decoded = iter(decode_clips(path, rest, spec) if rest else [])
    return [(mp4, next(decoded) if mp4 is None else next(beside)) for mp4 in copies]


def _pack(mp4: bytes | None, decoded: DecodedClip, spec: ClipSpec, crf: int, partial: str) -> EncodedClip:
    files = {}
    if mp4 is not None:
        files["mp4"] = mp4
    elif decoded.video is not None:
        files["mp4"] = pack_video(decoded.video, spec, crf)
    if decoded.waveform is not None:
        files["flac"] = pack_audio(decoded.waveform, spec.sample_rate)
    facts = {
        "chunks": decoded.chunks,
        "video_chunks": decoded.video_chunks,
        "audio_chunks": decoded.audio_chunks,
        "chunk_seconds": decoded.chunk_seconds,
        "frame_times": decoded.frame_times,
        "has_video": "mp4" in files,
        "has_audio": "flac" in files,
        "silent": decoded.waveform is not None and float(np.abs(decoded.waveform).max()) < SILENT_PEAK,
        "partial": partial,
        "copied": mp4 is not None,
        "sha256": {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()},
        "versions": versions(),
    }
    return EncodedClip(files, facts)


@functools.cache
def versions() -> dict[str, str]:
    """What the bytes of a clip depend on besides its source and the settings."""
    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"format": FORMAT, "av": av.__version__} | {
        name: libraries[name] for name in ("libavcodec", "libavformat", "libswscale", "libswresample")
    }


@functools.cache
def code_fingerprint() -> str:
    """A hash of the library versions and of the code that decides a clip's bytes: an edit makes all parts again."""
    return hashlib.sha256(json.dumps([versions(), np.__version__, code_hash(CLIPS)]).encode()).hexdigest()[:16]
