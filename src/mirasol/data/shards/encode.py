"""Encode slices: the clips of one source file that are encoded together, from one pass over it.

A slice is the unit of encoding and of the cache. Its bytes depend on its source, its spans, the settings, the code and
the library versions only, so slices may be encoded in any order by any process, and kept from run to run.
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
from mirasol.data.shards.format import FORMAT
from mirasol.data.storage import Identity, is_url, local_file
from mirasol.media.clip import ClipSpec
from mirasol.media.container import UNUSABLE, MediaError, open_media, reason
from mirasol.media.decode import DecodedClip, Span, decode_clips, decode_sound_of_copies
from mirasol.media.sandbox import sandboxed

JOB_CLIPS = 2  # clips of a job with short sources: with more, all would wait for a run's last job
SLICE_CLIPS = 32  # their frames are in memory at once; longer sources are divided in time
SILENT_PEAK = 1e-4  # below -80 dB of full scale, the floor of the features


@dataclass(frozen=True)
class SourceSlice:
    """Spans of one source, by their start."""

    media: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class EncodedClip:
    """A span as it goes into a tar, or why it is rejected."""

    files: dict[str, bytes]  # by extension, in the order of the tar
    facts: dict[str, Any]  # the part of its JSON that is the same for every example
    rejected: str = ""

    @property
    def final(self) -> bool:
        """Whether encoding it again would give the same. A failure may come from a lack of memory or time."""
        return not self.rejected and not self.facts["partial"]


@dataclass(frozen=True)
class Job:
    """Slices for one process, with all that it needs to encode them."""

    data_dir: Path
    slices: tuple[SourceSlice, ...]
    clip: ClipSpec
    crf: int
    code: str


def slices_of(clips: Iterable[Clip]) -> tuple[list[SourceSlice], dict[tuple[str, Span], tuple[int, int]]]:
    """The slices in the order of their first clip, and the place of each (media, span): number of slice and index.

    Collects all spans of a source from the whole manifest, each once for all splits, so a source is decoded about once.
    """
    spans_of: dict[str, dict[Span, None]] = {}
    for clip in clips:
        spans_of.setdefault(clip.media, {})[clip.start, clip.end] = None
    slices: list[SourceSlice] = []
    places: dict[tuple[str, Span], tuple[int, int]] = {}
    for media, spans in spans_of.items():
        ordered = sorted(spans, key=lambda span: (span[0] or 0.0, math.inf if span[1] is None else span[1]))
        for low in range(0, len(ordered), SLICE_CLIPS):
            one = SourceSlice(media, tuple(ordered[low : low + SLICE_CLIPS]))
            places |= {(media, span): (len(slices), index) for index, span in enumerate(one.spans)}
            slices.append(one)
    return slices, places


def slice_name(one: SourceSlice, identity: Identity | None, clip: ClipSpec, crf: int) -> str:
    """A hash of everything that the slice's bytes depend on: 64 hexadecimal characters."""
    recipe = [one.media, identity, one.spans, dataclasses.asdict(clip), crf, code_fingerprint()]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


def jobs_of(
    data_dir: Path, slices: Mapping[int, SourceSlice], clip: ClipSpec, crf: int
) -> Iterator[tuple[list[int], Job]]:
    """Each job with the numbers of its slices. All slices of a URL go into one job, which fetches it once."""
    jobs: list[list[int]] = []
    for number, one in slices.items():
        last = jobs[-1] if jobs else []
        same_url = bool(last) and is_url(one.media) and slices[last[-1]].media == one.media
        if last and (same_url or sum(len(slices[n].spans) for n in last) < JOB_CLIPS):
            last.append(number)
        else:
            jobs.append([number])
    for numbers in jobs:
        yield numbers, Job(data_dir, tuple(slices[n] for n in numbers), clip, crf, code_fingerprint())


def encode_job(job: Job) -> list[list[EncodedClip]]:
    """The clips of every slice of a job.

    Raises:
        MirasolError: this process has other code or libraries than the one that sent the job, or a store of media
            cannot be read.
    """
    if job.code != code_fingerprint():
        raise MirasolError(
            "a worker has other code or other libraries than this process, so the encoded clips would differ: install "
            f"the same mirasol and the same packages on every machine (here {code_fingerprint()}, there {job.code})"
        )
    encoded: list[list[EncodedClip]] = []
    for media, run in itertools.groupby(job.slices, key=lambda one: one.media):
        slices = list(run)
        try:
            with local_file(job.data_dir, media) as path:
                encoded += [_encode_sandboxed(path, one, job.clip, job.crf) for one in slices]
        except (FileNotFoundError, PermissionError) as error:  # of a store: the decoder opens local files
            why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be fetched: {reason(error)}"
            encoded += [[EncodedClip({}, {}, why)] * len(one.spans) for one in slices]
    return encoded


def _encode_sandboxed(path: Path, one: SourceSlice, spec: ClipSpec, crf: int) -> list[EncodedClip]:
    """:func:`encode_slice`; rejects a file that crashes or hangs the decoder, and the run goes on."""
    try:
        return sandboxed(encode_slice, path, one, spec, crf)
    except MediaError as error:
        return [EncodedClip({}, {}, str(error).replace(str(path), one.media))] * len(one.spans)


def encode_slice(path: Path, one: SourceSlice, spec: ClipSpec, crf: int) -> list[EncodedClip]:
    """The clips of a slice from its source, which lies at ``path``.

    Copies packets that conform; decodes the rest, once for all spans, and encodes it.
    """
    packed: list[tuple[bytes | None, DecodedClip | MediaError]]
    try:
        with open_media(path) as opened:
            if conforms(opened, spec):
                packed = _copy_or_decode(path, opened, one.spans, spec)
            else:
                packed = [(None, clip) for clip in decode_clips(path, one.spans, spec, opened)]
    except MediaError as error:
        packed = [(None, error)] * len(one.spans)
    except UNUSABLE as error:
        packed = [(None, MediaError(f"cannot be decoded: {reason(error)}"))] * len(one.spans)
    encoded = []
    for mp4, result in packed:
        if isinstance(result, MediaError):
            why = str(result).removeprefix(f"{path}: ").replace(str(path), one.media)
            encoded.append(EncodedClip({}, {}, why))
        else:
            encoded.append(_encode(mp4, result, spec, crf, result.partial.replace(str(path), one.media)))
    return encoded


def _copy_or_decode(
    path: Path, opened: InputContainer, spans: Sequence[Span], spec: ClipSpec
) -> list[tuple[bytes | None, DecodedClip | MediaError]]:
    """(packets, sound) of each clip that conforms, (``None``, decoded clip) of the others."""
    copies = copy_videos(opened, spans, spec)
    copied = [start for (start, _), mp4 in zip(spans, copies, strict=True) if mp4 is not None]
    rest = [span for span, mp4 in zip(spans, copies, strict=True) if mp4 is None]
    sounds = iter(decode_sound_of_copies(path, copied, spec))
    decoded = iter(decode_clips(path, rest, spec) if rest else [])
    return [(mp4, next(decoded) if mp4 is None else next(sounds)) for mp4 in copies]


def _encode(mp4: bytes | None, decoded: DecodedClip, spec: ClipSpec, crf: int, partial: str) -> EncodedClip:
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
    """The format and the versions of the libraries that decide a clip's bytes."""
    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"format": FORMAT, "av": av.__version__} | {
        name: libraries[name] for name in ("libavcodec", "libavformat", "libswscale", "libswresample")
    }


@functools.cache
def code_fingerprint() -> str:
    """A hash of the library versions and of the code that decides a clip's bytes."""
    return hashlib.sha256(json.dumps([versions(), np.__version__, code_hash(CLIPS)]).encode()).hexdigest()[:16]
