"""From the manifest to shards: WebDataset tars of clips, each with an index, and a checked list written last.

Every clip is ``KEY.mp4`` (absent without video), ``KEY.flac`` (absent without audio) and ``KEY.json``. Workers encode
slices of sources into a cache (``encode.py``, ``encoded_cache.py``); this process writes the tars in the order of the
manifest, so their bytes do not depend on the workers or on earlier runs. A folder without ``shards.json`` is
unfinished.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import atomic_write, disk_error, sha256_file, write_json
from mirasol.core.progress import Progress
from mirasol.data.linked_media import check_media
from mirasol.data.manifest import (
    SPLITS,
    UNLABELLED,
    Clip,
    clips_of,
    lacking_split,
    needed_splits,
    read_manifest,
    row_of,
)
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import EncodedClip, Job, encode_job, jobs_of, slice_name, slices_of, versions
from mirasol.data.shards.encoded_cache import EncodedCache
from mirasol.data.shards.executors import WorkersDied, open_workers, run_jobs
from mirasol.data.shards.format import FORMAT, INDEX, INDEX_SUFFIX, ShardWriter, object_name
from mirasol.data.storage import RemoteFolder, check_folder, identities, is_url
from mirasol.media.clip import ClipSpec
from mirasol.media.resample import SAME_TIME

LISTED = 100  # rejected clips in the report; shards.json has all
IDENTITY = ("key", "media", "start", "end", "split")  # of a clip, in its JSON and among the rejected
COUNTED = ("without_audio", "without_video", "silent", "partial", "copied", "cut_short", "reused")


def build_shards(
    data_dir: str | Path, out_dir: str | Path, clip: ClipSpec, spec: ShardsSpec, cache: str | Path | None = None
) -> dict[str, Any]:
    """Write ``{split}-{number:05d}.tar``, their indexes and ``shards.json`` into ``out_dir``.

    Leaves out, counts and lists clips that cannot be used. Reuses slices that earlier runs left in ``cache`` (default:
    ``out_dir`` with the suffix ``.parts``); the result is the same.

    With ``spec.storage`` the tars and their indexes go to that URL, under names with their hashes, each as soon as it
    is complete, and ``shards.json`` stays in ``out_dir``. Files that are already stored are not sent again, and none is
    removed.

    Returns:
        Counts, rejected clips with reasons, bytes, seconds and clips per second.

    Raises:
        MirasolError: the manifest is wrong, a split that training or evaluation needs is empty, media differ from
            their listing, more than ``spec.max_rejected`` of the clips are unusable, another run uses the cache,
            workers died, a folder cannot be written, or the store cannot be reached. The tars that this run had
            written to ``out_dir`` are removed.
    """
    data_dir, out_dir = Path(data_dir).absolute(), Path(out_dir)
    if spec.storage and (wrong := check_folder(spec.storage)):
        raise MirasolError(f"shards.storage: {wrong}")
    if spec.storage.startswith("file://") and Path(spec.storage[7:]).resolve() == out_dir.resolve():
        raise MirasolError(f"shards.storage is {out_dir} itself, which each run empties: leave the key empty")
    manifest = data_dir / "manifest.jsonl"
    clips = clips_of(read_manifest(manifest))
    asked = {c.split for c in clips}
    needed = needed_splits(asked, texts=any(map(_has_texts, clips)))
    _check_splits(manifest, needed, asked)
    check_media(data_dir, dict.fromkeys(c.media for c in clips if not is_url(c.media)))
    start = time.monotonic()
    with EncodedCache(Path(cache) if cache is not None else out_dir.with_name(f"{out_dir.name}.parts")) as kept:
        run = _Run(data_dir, out_dir, clip, spec, kept)
        try:
            for stale in (out_dir / INDEX, *out_dir.glob(".*.tmp")):  # the latter: of a killed run
                stale.unlink(missing_ok=True)
            run.write(clips)
            _check_splits(manifest, needed, {split for split, count in run.splits.items() if count})
            for path in out_dir.glob("*-*.tar*"):
                if path not in run.written:  # of an earlier run with other settings
                    path.unlink()
            write_json(out_dir / INDEX, run.index())
        except BaseException as error:
            with contextlib.suppress(OSError):
                for path in run.written:
                    path.unlink(missing_ok=True)
            if isinstance(error, OSError) and (full := disk_error(error, out_dir)):
                raise full from error
            raise
        kept.keep_only(run.used)
    return run.report(time.monotonic() - start)


class _Run:
    """One run: its settings, the files it has written, and its counts."""

    def __init__(self, data_dir: Path, out_dir: Path, clip: ClipSpec, spec: ShardsSpec, kept: EncodedCache) -> None:
        self.data_dir, self.out_dir, self.clip, self.spec, self.kept = data_dir, out_dir, clip, spec, kept
        self.written: list[Path] = []
        self.used: set[str] = set()  # names of the slices
        self.tars: list[dict[str, Any]] = []
        self.rejected: list[tuple[Clip, str]] = []
        self.splits: collections.Counter[str] = collections.Counter()  # clips
        self.examples: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        self.bytes = self.sent = 0
        self.remote: RemoteFolder | None = None
        self.stored: dict[str, int] = {}  # bytes of each file behind the URL

    def write(self, clips: list[Clip]) -> None:
        """Encode every clip that the cache lacks, and write the tars."""
        if self.spec.storage:
            self.remote = RemoteFolder(self.spec.storage)
            self.stored = self.remote.sizes()
        size = self.spec.clips_per_shard
        groups = []
        for split in SPLITS:
            of_split = [c for c in clips if c.split == split]
            groups += [(split, low // size, of_split[low : low + size]) for low in range(0, len(of_split), size)]
        with Progress("shards", len(clips), "clips") as progress:
            encoded = self._encoded([clip for _, _, group in groups for clip in group])
            with contextlib.closing(encoded):
                for split, number, group in groups:
                    self._write_tar(split, number, zip(group, encoded, strict=False), len(clips), progress)

    def _encoded(self, clips: list[Clip]) -> Generator[EncodedClip, None, None]:
        """Every clip in the order given, from the cache; workers encode the missing slices in the same order."""
        slices, places = slices_of(clips)
        identity = identities(self.data_dir, dict.fromkeys(one.media for one in slices))
        names = [slice_name(one, identity[one.media], self.clip, self.spec.crf) for one in slices]
        self.used = set(names)
        missing = {number: one for number, one in enumerate(slices) if names[number] not in self.kept}
        new = {names[number] for number in missing}
        jobs = list(jobs_of(self.data_dir, missing, self.clip, self.spec.crf))
        with self._results([job for _, job in jobs]) as results:
            numbers = iter(numbers for numbers, _ in jobs)
            for clip in clips:
                number, index = places[clip.media, (clip.start, clip.end)]
                while names[number] not in self.kept:
                    for done, part in zip(next(numbers), next(results), strict=True):
                        self.kept.write(names[done], part)
                encoded = self.kept.read(names[number], index)
                if encoded is None:  # damaged on the disk
                    (job,) = jobs_of(self.data_dir, {number: slices[number]}, self.clip, self.spec.crf)
                    (part,) = encode_job(job[1])
                    self.kept.write(names[number], part)
                    encoded = part[index]
                elif names[number] not in new:
                    self.counts["reused"] += 1
                yield encoded

    @contextlib.contextmanager
    def _results(self, jobs: list[Job]) -> Iterator[Iterator[list[list[EncodedClip]]]]:
        if not jobs:
            yield iter(())
            return
        try:
            with open_workers(self.spec, len(jobs)) as workers:
                yield run_jobs(encode_job, jobs, workers)
        except WorkersDied as error:
            suspects = {_in_a_line(one.media) for job in error.jobs for one in job.slices}
            title = (
                "a process of the shards stage died, out of memory or on a file that crashes the decoder; "
                "lower shards.workers, or take the damaged file out. It was working on some of"
            )
            raise MirasolError(listing(title, sorted(suspects), 20)) from error

    def _write_tar(
        self, split: str, number: int, group: Iterator[tuple[Clip, EncodedClip]], total: int, progress: Progress
    ) -> None:
        path = self.out_dir / f"{split}-{number:05d}.tar"
        samples: list[list[Any]] = []
        hashes: list[str] = []  # of the JSON files, which hold those of the media
        with atomic_write(path) as file:
            tar = ShardWriter(file)
            for clip, encoded in group:
                if encoded.rejected:
                    self._reject(clip, encoded.rejected, total)
                else:
                    facts = (
                        _identity(clip) | {"examples": [row_of(example) for example in clip.examples]} | encoded.facts
                    )
                    data = (json.dumps(facts, sort_keys=True, ensure_ascii=False) + "\n").encode()
                    samples.append([clip.key, tar.add(clip.key, encoded.files | {"json": data})])
                    hashes.append(hashlib.sha256(data).hexdigest())
                    self._count(clip, encoded.facts)
                bad = {"unusable": len(self.rejected)} if self.rejected else {}
                progress.advance(1, written=f"{(self.bytes + file.tell()) / 1e6:,.1f} MB", **bad)
            tar.close()
        index = path.with_name(path.name + INDEX_SUFFIX)
        self.written += [path, index]
        with atomic_write(index, "w") as file:
            listed = {"format": FORMAT, "samples": samples, "json_sha256": hashes}
            json.dump(listed, file, sort_keys=True, separators=(",", ":"))
        size = path.stat().st_size
        self.bytes += size
        entry = {"name": path.name, "split": split, "clips": len(samples), "bytes": size, "sha256": sha256_file(path)}
        self.tars.append(entry)
        if self.remote is not None:
            entry["index_sha256"] = sha256_file(index)
            self._send(self.remote, path, str(entry["sha256"]))
            self._send(self.remote, index, str(entry["index_sha256"]))

    def _send(self, remote: RemoteFolder, path: Path, sha256: str) -> None:
        """Move a file to the store, unless an earlier run has."""
        name, size = object_name(path.name, sha256), path.stat().st_size
        if self.stored.get(name) != size:
            remote.put(path, name)
            self.stored[name] = size
            self.sent += size
        path.unlink()

    def _count(self, clip: Clip, facts: dict[str, Any]) -> None:
        self.splits[clip.split] += 1
        self.examples[clip.split] += len(clip.examples)
        self.counts.update(
            without_audio=not facts["has_audio"],
            without_video=not facts["has_video"],
            silent=facts["silent"],
            partial=bool(facts["partial"]),
            copied=facts["copied"],
            cut_short=int(_cut_short(clip, self.clip)),
        )

    def _reject(self, clip: Clip, reason: str, total: int) -> None:
        self.rejected.append((clip, reason))
        if len(self.rejected) > self.spec.max_rejected * total:
            title = (
                f"more than shards.max_rejected = {self.spec.max_rejected:g} of the {total} clips are unusable: fix "
                f"or remove these, or raise the limit. The first {len(self.rejected)}"
            )
            raise MirasolError(listing(title, self._rejected_lines(), 10))

    def _rejected_lines(self) -> list[str]:
        return [f"{_in_a_line(clip.media)} [{clip.key}]: {reason}" for clip, reason in self.rejected]

    def index(self) -> dict[str, Any]:
        """The contents of ``shards.json``, which do not depend on time or machine."""
        return {
            "format": FORMAT,
            "clip": dataclasses.asdict(self.clip),
            "crf": self.spec.crf,
            "splits": {split: [tar for tar in self.tars if tar["split"] == split] for split in SPLITS},
            **({"storage": self.remote.url} if self.remote is not None else {}),
            "rejected": [_identity(clip) | {"reason": reason} for clip, reason in self.rejected],
            "versions": versions(),
        }

    def report(self, seconds: float) -> dict[str, Any]:
        """What the run made, and how fast."""
        clips = sum(self.splits.values())
        return {
            "clips": clips,
            "splits": {split: self.splits[split] for split in SPLITS},
            "examples": {split: self.examples[split] for split in SPLITS},
            "rejected": len(self.rejected),
            "rejected_list": self._rejected_lines()[:LISTED],
            **{fact: self.counts[fact] for fact in COUNTED},
            "bytes": self.bytes,
            **({"sent": self.sent} if self.remote is not None else {}),
            "shards": len(self.tars),
            "seconds": round(seconds, 2),
            "clips_per_second": round((clips + len(self.rejected)) / max(seconds, 1e-9), 1),
        }


def _identity(clip: Clip) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in IDENTITY}


def _in_a_line(media: str) -> str:
    """The name on one line: it may hold line ends and terminal control codes."""
    return media if media.isprintable() else json.dumps(media)


def _cut_short(clip: Clip, spec: ClipSpec) -> bool:
    """Whether the clip ends after its T chunks, so that its end is left out."""
    seen = spec.chunks * spec.chunk_seconds
    return spec.sampling == "rate" and clip.end is not None and clip.end - (clip.start or 0.0) > seen + SAME_TIME


def _has_texts(clip: Clip) -> bool:
    return any(example.task != UNLABELLED for example in clip.examples)


def _check_splits(manifest: Path, needed: list[str], present: set[str]) -> None:
    """Report an empty split before hours of work."""
    if lack := lacking_split(needed, present):
        raise MirasolError(f"{manifest}: no usable clip in {lack}")
