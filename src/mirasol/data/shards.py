"""From the manifest to shards: WebDataset tars of clips, each with an index, and a checked list written last.

Every clip is ``KEY.mp4`` (absent without a picture), ``KEY.flac`` (absent without sound) and ``KEY.json``.
Clips are made by a pool of processes and written in the order of the manifest by this one, so that the
bytes do not depend on the number of processes. A folder without ``shards.json`` is unfinished.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error, sha256_file, write_json
from mirasol.core.progress import Progress
from mirasol.data.collect import SAME_TIME
from mirasol.data.decode import DecodedClip, decode_beside_copy, decode_clips
from mirasol.data.guard import guarded
from mirasol.data.manifest import SPLITS, Clip, clips_of, listing, read_manifest, row_of
from mirasol.data.media import UNUSABLE, MediaError, reason
from mirasol.data.pack import copy_video, pack_audio, pack_video
from mirasol.data.spec import ClipSpec, ShardsSpec

FORMAT = "mirasol-shards-1"
INDEX = "shards.json"
INDEX_SUFFIX = ".idx.json"
LISTED = 100  # rejected clips in the report; shards.json has all
JOB_CLIPS, MOST_CLIPS = 8, 32  # handed to a process at a time: usually, and of one source at most
JOBS_AHEAD = 4  # jobs per process that may wait to be written
SILENT_PEAK = 1e-4  # below -80 dB of full scale, the floor of the features


@dataclass(frozen=True)
class Made:
    """A clip as it goes into a tar, or why it does not."""

    clip: Clip
    files: dict[str, bytes]  # by extension, in the order of the tar
    facts: dict[str, Any]
    rejected: str = ""


def build_shards(data_dir: str | Path, out_dir: str | Path, clip: ClipSpec, spec: ShardsSpec) -> dict[str, Any]:
    """Write ``{split}-{number:05d}.tar``, their indexes and ``shards.json`` into ``out_dir``.

    A clip that cannot be used is left out, counted and listed with its reason.

    Returns:
        Counts, rejected clips with reasons, bytes, seconds and clips per second: ``reports/shards.json``.

    Raises:
        MirasolError: the manifest is wrong, a split that training or evaluation needs is empty, more than
            ``spec.max_rejected`` of the clips are unusable, or the folder cannot be written. What this run
            had written is removed.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    clips = clips_of(read_manifest(data_dir / "manifest.jsonl"))
    _check_splits(data_dir / "manifest.jsonl", {c.split for c in clips})
    begun = time.monotonic()
    written: list[Path] = []
    try:
        for stale in (out_dir / INDEX, *out_dir.glob(".*.tmp")):  # the second: of a run that was killed
            stale.unlink(missing_ok=True)
        tars, made = _write_all(data_dir, out_dir, clips, clip, spec, written)
        _check_splits(data_dir / "manifest.jsonl", {m.clip.split for m in made if not m.rejected})
        for path in out_dir.glob("*-*.tar*"):
            if path not in written:  # of an earlier run with other settings
                path.unlink()
        write_json(out_dir / INDEX, _index(tars, made, clip, spec))
    except BaseException as error:
        with contextlib.suppress(OSError):
            for path in written:
                path.unlink(missing_ok=True)
        if isinstance(error, OSError) and (told := disk_error(error, out_dir)):
            raise told from error
        raise
    return _report(tars, made, clip, time.monotonic() - begun)


def _index(tars: list[dict[str, Any]], made: list[Made], clip: ClipSpec, spec: ShardsSpec) -> dict[str, Any]:
    """What ``shards.json`` says; nothing in it depends on when or where it was made."""
    return {
        "format": FORMAT,
        "clip": dataclasses.asdict(clip),
        "crf": spec.crf,
        "splits": {split: [tar for tar in tars if tar["split"] == split] for split in SPLITS},
        "rejected": [
            {name: getattr(m.clip, name) for name in ("key", "media", "start", "end", "split")} | {"reason": m.rejected}
            for m in made
            if m.rejected
        ],
        "versions": versions(),
    }


def _report(tars: list[dict[str, Any]], made: list[Made], clip: ClipSpec, seconds: float) -> dict[str, Any]:
    kept = [m for m in made if not m.rejected]
    rejected = [f"{m.clip.media} [{m.clip.key}]: {m.rejected}" for m in made if m.rejected]
    return {
        "clips": len(kept),
        "splits": {split: sum(m.clip.split == split for m in kept) for split in SPLITS},
        "examples": {split: sum(len(m.clip.examples) for m in kept if m.clip.split == split) for split in SPLITS},
        "rejected": len(rejected),
        "rejected_list": rejected[:LISTED],
        "without_audio": sum(not m.facts["has_audio"] for m in kept),
        "without_video": sum(not m.facts["has_video"] for m in kept),
        "silent": sum(m.facts["silent"] for m in kept),
        "partial": sum(bool(m.facts["partial"]) for m in kept),
        "copied": sum(m.facts["copied"] for m in kept),
        "cut_short": sum(_cut_short(m.clip, clip) for m in kept),
        "bytes": sum(int(tar["bytes"]) for tar in tars),
        "shards": len(tars),
        "seconds": round(seconds, 2),
        "clips_per_second": round(len(made) / max(seconds, 1e-9), 1),
    }


def _cut_short(clip: Clip, spec: ClipSpec) -> bool:
    """Whether the clip's end lies after its T chunks: what comes behind them is never seen."""
    seen = spec.chunks * spec.chunk_seconds
    return spec.sampling == "rate" and clip.end is not None and clip.end - (clip.start or 0.0) > seen + SAME_TIME


def make_clips(data_dir: Path, clips: list[Clip], spec: ClipSpec, crf: int) -> list[Made]:
    """Clips of one source file as the files of shard samples, in the order given.

    Packets that conform are copied, all else is decoded, once for all the clips, and encoded.
    """
    path = data_dir / clips[0].media
    packed: list[tuple[bytes | None, DecodedClip | MediaError]] = []
    try:
        copies = [copy_video(path, clip.start, clip.end, spec) for clip in clips]
        spans = [(clip.start, clip.end) for clip, mp4 in zip(clips, copies, strict=True) if mp4 is None]
        decoded = iter(decode_clips(path, spans, spec) if spans else [])
        for clip, mp4 in zip(clips, copies, strict=True):
            packed.append((mp4, next(decoded) if mp4 is None else decode_beside_copy(path, clip.start, spec)))
    except MediaError as error:
        packed = [(None, error)] * len(clips)
    except UNUSABLE as error:
        packed = [(None, MediaError(f"cannot be decoded: {reason(error)}"))] * len(clips)
    made = []
    for clip, (mp4, result) in zip(clips, packed, strict=True):
        if isinstance(result, MediaError):
            told = str(result).removeprefix(f"{path}: ").replace(f"{data_dir}{os.sep}", "")
            made.append(Made(clip, {}, {}, told))
        else:
            made.append(_pack(data_dir, clip, mp4, result, spec, crf))
    return made


def _pack(data_dir: Path, clip: Clip, mp4: bytes | None, decoded: DecodedClip, spec: ClipSpec, crf: int) -> Made:
    files = {}
    if mp4 is not None:
        files["mp4"] = mp4
    elif decoded.video is not None:
        files["mp4"] = pack_video(decoded.video, spec, crf)
    if decoded.waveform is not None:
        files["flac"] = pack_audio(decoded.waveform, spec.sample_rate)
    facts = {
        "key": clip.key,
        "media": clip.media,
        "start": clip.start,
        "end": clip.end,
        "split": clip.split,
        "examples": [row_of(example) for example in clip.examples],
        "chunks": decoded.chunks,
        "video_chunks": decoded.video_chunks,
        "audio_chunks": decoded.audio_chunks,
        "chunk_seconds": decoded.chunk_seconds,
        "frame_times": decoded.frame_times,
        "has_video": "mp4" in files,
        "has_audio": "flac" in files,
        "silent": decoded.waveform is not None and float(np.abs(decoded.waveform).max()) < SILENT_PEAK,
        "partial": decoded.partial.replace(f"{data_dir}{os.sep}", ""),
        "copied": mp4 is not None,
        "sha256": {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()},
        "versions": versions(),
    }
    files["json"] = (json.dumps(facts, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return Made(clip, files, facts)


@functools.cache
def versions() -> dict[str, str]:
    """What the bytes of a clip depend on besides its source and the settings."""
    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"format": FORMAT, "av": av.__version__} | {
        name: libraries[name] for name in ("libavcodec", "libavformat", "libswscale", "libswresample")
    }


def _check_splits(manifest: Path, present: set[str]) -> None:
    """Refuse now what training would refuse after hours. Without test clips ``evaluate.split`` can be val."""
    for split, why in (("train", "there is nothing to learn from"), ("val", "training cannot score itself")):
        if split not in present:
            raise MirasolError(
                f"{manifest}: no usable clip in the split {split}: {why}. Give some groups that split "
                "(where annotations give none, a hash of the group chooses, which with few groups may skip a split)"
            )


def _write_all(
    data_dir: Path, out_dir: Path, clips: list[Clip], clip: ClipSpec, spec: ShardsSpec, written: list[Path]
) -> tuple[list[dict[str, Any]], list[Made]]:
    """Make every clip and write the tars; returns the tars' entries and all clips without their files."""
    groups = [
        (split, number, group)
        for split in SPLITS
        for number, group in enumerate(_cut([c for c in clips if c.split == split], spec.clips_per_shard))
    ]
    jobs = [(data_dir, job, clip, spec.crf) for _, _, group in groups for job in _jobs(group)]
    tars: list[dict[str, Any]] = []
    everything: list[Made] = []
    bad: list[str] = []
    processes = max(1, min(spec.workers, len(jobs)))
    with _pool(processes) as pool, Progress("shards", len(clips), "clips") as progress:
        results = itertools.chain.from_iterable(_ordered(pool, jobs, JOBS_AHEAD * processes))
        for split, number, group in groups:
            path = out_dir / f"{split}-{number:05d}.tar"
            samples: list[list[Any]] = []
            with atomic_write(path) as file:
                tar = Tar(file)
                for made in itertools.islice(results, len(group)):
                    if made.rejected:
                        bad.append(f"{made.clip.media} [{made.clip.key}]: {made.rejected}")
                        if len(bad) > spec.max_rejected * len(clips):
                            _over_budget(bad, len(clips), spec.max_rejected)
                    else:
                        samples.append([made.clip.key, tar.add(made.clip.key, made.files)])
                    everything.append(dataclasses.replace(made, files={}))
                    progress.advance(1, **({"unusable": len(bad)} if bad else {}))
                tar.close()
            written += [path, path.with_name(path.name + INDEX_SUFFIX)]
            with atomic_write(written[-1], "w") as file:
                json.dump({"format": FORMAT, "samples": samples}, file, sort_keys=True, separators=(",", ":"))
            tars.append(
                {
                    "name": path.name,
                    "split": split,
                    "clips": len(samples),
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
            )
    return tars, everything


def _over_budget(bad: list[str], clips: int, allowed: float) -> None:
    title = (
        f"more than shards.max_rejected = {allowed:g} of the {clips} clips are unusable: mend or remove these, "
        f"or raise the limit. The first {len(bad)}"
    )
    raise MirasolError(listing(title, bad, 10))


class Tar:
    """Writes a tar whose bytes depend on names and contents alone, and says where each file lies."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, files: dict[str, bytes]) -> dict[str, tuple[int, int]]:
        """Append ``key.kind`` for every kind; returns (offset, size) of each one's contents."""
        places = {}
        for kind, data in files.items():
            info = tarfile.TarInfo(f"{key}.{kind}")  # time, owner and mode are fixed by TarInfo's defaults
            info.size = len(data)
            places[kind] = (self._tar.offset + tarfile.BLOCKSIZE, len(data))
            self._tar.addfile(info, io.BytesIO(data))
        return places

    def close(self) -> None:
        self._tar.close()


def _cut(items: list[Clip], size: int) -> list[list[Clip]]:
    return [items[low : low + size] for low in range(0, len(items), size)]


Job = tuple[Path, list[Clip], ClipSpec, int]


def _jobs(clips: list[Clip]) -> Iterator[list[Clip]]:
    """About JOB_CLIPS clips a job; a run of clips of one source stays together, up to MOST_CLIPS of them."""
    job: list[Clip] = []
    for clip in clips:
        full = len(job) >= JOB_CLIPS and (clip.media != job[-1].media or len(job) >= MOST_CLIPS)
        if full:
            yield job
            job = []
        job.append(clip)
    if job:
        yield job


def _make_job(job: Job) -> list[Made]:
    data_dir, clips, spec, crf = job
    runs = (list(run) for _, run in itertools.groupby(clips, key=lambda clip: clip.media))
    return [made for run in runs for made in _make_guarded(data_dir, run, spec, crf)]


def _make_guarded(data_dir: Path, clips: list[Clip], spec: ClipSpec, crf: int) -> list[Made]:
    """:func:`make_clips` of one file, which may crash or hang: then it is rejected, and the run goes on."""
    try:
        return guarded(make_clips, data_dir, clips, spec, crf)
    except MediaError as error:
        return [Made(clip, {}, {}, str(error)) for clip in clips]


def _ordered(pool: Executor, jobs: Iterable[Job], ahead: int) -> Iterator[list[Made]]:
    """Results in the order of the jobs, with no more than ``ahead`` jobs in flight."""
    flying: collections.deque[tuple[Job, Future[list[Made]]]] = collections.deque()
    try:
        for job in jobs:
            flying.append((job, pool.submit(_make_job, job)))
            if len(flying) >= ahead:
                yield flying[0][1].result()
                flying.popleft()
        while flying:
            yield flying[0][1].result()
            flying.popleft()
    except BrokenProcessPool as error:
        suspects = [clip.media for job, future in flying if future.exception() is not None for clip in job[1]]
        raise MirasolError(
            listing(
                "a process of the shards stage died, out of memory or on a file that crashes the decoder; "
                "lower shards.workers, or take the damaged file out. It was working on some of",
                sorted(set(suspects)),
                20,
            )
        ) from error


def _pool(processes: int) -> ProcessPoolExecutor:
    """Fresh processes: FFmpeg in one that was forked from a process with threads can deadlock."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
