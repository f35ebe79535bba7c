"""From the manifest to shards: WebDataset tars of clips, each with an index, and a checked list written last.

Every clip is ``KEY.mp4`` (absent without a picture), ``KEY.flac`` (absent without sound) and ``KEY.json``.
Parts of sources are made by workers and kept in a store (``parts.py``, ``store.py``); this process puts them into
tars in the order of the manifest, so that the bytes do not depend on who made what when, or had made it before.
A folder without ``shards.json`` is unfinished.
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

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, disk_error, sha256_file, write_json
from mirasol.core.progress import Progress
from mirasol.data.linked_media import check_media
from mirasol.data.manifest import SPLITS, Clip, clips_of, listing, read_manifest, row_of
from mirasol.data.remote import RemoteFolder, object_name
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import FORMAT, EncodedClip, Job, jobs_of, make_job, part_name, parts_of, versions
from mirasol.data.shards.encoded_cache import EncodedCache
from mirasol.data.shards.executors import WorkersDied, open_workers, run_jobs
from mirasol.data.shards.format import ShardWriter
from mirasol.data.storage import check_folder, identities, is_url
from mirasol.media.clip import ClipSpec
from mirasol.media.resample import SAME_TIME

__all__ = ["FORMAT", "INDEX", "INDEX_SUFFIX", "build_shards"]

INDEX = "shards.json"
INDEX_SUFFIX = ".idx.json"
LISTED = 100  # rejected clips in the report; shards.json has all


def build_shards(
    data_dir: str | Path, out_dir: str | Path, clip: ClipSpec, spec: ShardsSpec, store: str | Path | None = None
) -> dict[str, Any]:
    """Write ``{split}-{number:05d}.tar``, their indexes and ``shards.json`` into ``out_dir``.

    A clip that cannot be used is left out, counted and listed with its reason. Parts that ``store`` (default:
    ``out_dir`` with ``.parts`` at its end) has from earlier runs are not made again; the result is the same.

    With ``spec.storage`` the tars and their indexes go to that URL, under names with their hashes, each as soon as it
    is whole; ``shards.json`` in ``out_dir`` says so. What is there already is not sent again, and nothing is removed.

    Returns:
        Counts, rejected clips with reasons, bytes, seconds and clips per second: ``reports/shards.json``.

    Raises:
        MirasolError: the manifest is wrong, a split that training or evaluation needs is empty, media are not what
            their listing says, more than ``spec.max_rejected`` of the clips are unusable, another run is at work on
            the same store, workers died, a folder cannot be written, or the store cannot be reached. The tars that
            this run had written to ``out_dir`` are removed.
    """
    data_dir, out_dir = Path(data_dir).absolute(), Path(out_dir)
    if spec.storage and (wrong := check_folder(spec.storage)):
        raise MirasolError(f"shards.storage: {wrong}")
    if spec.storage.startswith("file://") and Path(spec.storage[7:]).resolve() == out_dir.resolve():
        raise MirasolError(f"shards.storage is {out_dir} itself, which each run empties: leave the key empty")
    manifest = data_dir / "manifest.jsonl"
    clips = clips_of(read_manifest(manifest))
    asked = {c.split for c in clips}
    _check_splits(manifest, asked, asked)
    check_media(data_dir, dict.fromkeys(c.media for c in clips if not is_url(c.media)))
    begun = time.monotonic()
    written: list[Path] = []
    with EncodedCache(Path(store) if store is not None else out_dir.with_name(f"{out_dir.name}.parts")) as kept:
        try:
            for stale in (out_dir / INDEX, *out_dir.glob(".*.tmp")):  # the second: of a run that was killed
                stale.unlink(missing_ok=True)
            shards = _Shards(data_dir, out_dir, clip, spec, kept, written)
            shards.write(clips)
            _check_splits(manifest, asked, {split for split, count in shards.splits.items() if count})
            for path in out_dir.glob("*-*.tar*"):
                if path not in written:  # of an earlier run with other settings
                    path.unlink()
            write_json(out_dir / INDEX, shards.index())
        except BaseException as error:
            with contextlib.suppress(OSError):
                for path in written:
                    path.unlink(missing_ok=True)
            if isinstance(error, OSError) and (told := disk_error(error, out_dir)):
                raise told from error
            raise
        kept.keep_only(shards.used)
    return shards.report(time.monotonic() - begun)


class _Shards:
    """One run: what it writes, and what it has counted."""

    def __init__(
        self, data_dir: Path, out_dir: Path, clip: ClipSpec, spec: ShardsSpec, kept: EncodedCache, written: list[Path]
    ) -> None:
        self.data_dir, self.out_dir, self.clip, self.spec, self.kept = data_dir, out_dir, clip, spec, kept
        self.written = written
        self.used: set[str] = set()  # names of the parts
        self.tars: list[dict[str, Any]] = []
        self.rejected: list[tuple[Clip, str]] = []
        self.splits: collections.Counter[str] = collections.Counter()  # clips
        self.examples: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        self.bytes = 0
        self.remote = RemoteFolder(spec.storage) if spec.storage else None
        self.there = self.remote.sizes() if self.remote is not None else {}
        self.sent = 0  # bytes

    def write(self, clips: list[Clip]) -> None:
        """Make every clip that the store has not, and write the tars."""
        size = self.spec.clips_per_shard
        groups = []
        for split in SPLITS:
            of_split = [c for c in clips if c.split == split]
            groups += [(split, low // size, of_split[low : low + size]) for low in range(0, len(of_split), size)]
        with Progress("shards", len(clips), "clips") as progress:
            made = self._made([clip for _, _, group in groups for clip in group])
            with contextlib.closing(made):
                for split, number, group in groups:
                    self._write_tar(split, number, group, made, len(clips), progress)

    def _made(self, clips: list[Clip]) -> Generator[EncodedClip, None, None]:
        """Every clip in the order given, from the store; workers make the parts that it lacks, in the same order."""
        parts, places = parts_of(clips)
        identity = identities(self.data_dir, dict.fromkeys(part.media for part in parts))
        names = [part_name(part, identity[part.media], self.clip, self.spec.crf) for part in parts]
        self.used = set(names)
        missing = {number: part for number, part in enumerate(parts) if names[number] not in self.kept}
        new = {names[number] for number in missing}
        jobs = list(jobs_of(self.data_dir, missing, self.clip, self.spec.crf))
        with self._results([job for _, job in jobs]) as results:
            numbers = iter(numbers for numbers, _ in jobs)
            for clip in clips:
                number, index = places[clip.media, (clip.start, clip.end)]
                while names[number] not in self.kept:
                    for done, part in zip(next(numbers), next(results), strict=True):
                        self.kept.write(names[done], part)
                made = self.kept.read(names[number], index)
                if made is None:  # the disk has spoilt it
                    (job,) = jobs_of(self.data_dir, {number: parts[number]}, self.clip, self.spec.crf)
                    (part,) = make_job(job[1])
                    self.kept.write(names[number], part)
                    made = part[index]
                elif names[number] not in new:
                    self.counts["reused"] += 1
                yield made

    @contextlib.contextmanager
    def _results(self, jobs: list[Job]) -> Iterator[Iterator[list[list[EncodedClip]]]]:
        if not jobs:
            yield iter(())
            return
        try:
            with open_workers(self.spec, len(jobs)) as workers:
                yield run_jobs(make_job, jobs, workers)
        except WorkersDied as error:
            suspects = {_in_a_line(part.media) for job in error.jobs for part in job.parts}
            raise MirasolError(
                listing(
                    "a process of the shards stage died, out of memory or on a file that crashes the decoder; "
                    "lower shards.workers, or take the damaged file out. It was working on some of",
                    sorted(suspects),
                    20,
                )
            ) from error

    def _write_tar(
        self, split: str, number: int, group: list[Clip], made: Iterator[EncodedClip], total: int, progress: Progress
    ) -> None:
        path = self.out_dir / f"{split}-{number:05d}.tar"
        samples: list[list[Any]] = []
        hashes: list[str] = []  # of the JSON files; media have theirs in there
        with atomic_write(path) as file:
            tar = ShardWriter(file)
            for clip in group:
                one = next(made)
                if one.rejected:
                    self._reject(clip, one.rejected, total)
                else:
                    facts = self._json(clip, one)
                    samples.append([clip.key, tar.add(clip.key, one.files | {"json": facts})])
                    hashes.append(hashlib.sha256(facts).hexdigest())
                    self._count(clip, one)
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
        tar_of: dict[str, Any] = {
            "name": path.name,
            "split": split,
            "clips": len(samples),
            "bytes": size,
            "sha256": sha256_file(path),
        }
        self.tars.append(tar_of)
        if self.remote is not None:
            tar_of["index_sha256"] = sha256_file(index)
            self._send(self.remote, path, tar_of["sha256"])
            self._send(self.remote, index, tar_of["index_sha256"])

    def _send(self, remote: RemoteFolder, path: Path, sha256: str) -> None:
        """Move a file to where the tars lie, unless it is there from an earlier run."""
        name, size = object_name(path.name, sha256), path.stat().st_size
        if self.there.get(name) != size:
            remote.put(path, name)
            self.there[name] = size
            self.sent += size
        path.unlink()

    @staticmethod
    def _json(clip: Clip, made: EncodedClip) -> bytes:
        """``KEY.json``: which clip it is, its examples, and the facts of its making."""
        asked = {name: getattr(clip, name) for name in ("key", "media", "start", "end", "split")}
        facts = asked | {"examples": [row_of(example) for example in clip.examples]} | made.facts
        return (json.dumps(facts, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def _count(self, clip: Clip, made: EncodedClip) -> None:
        self.splits[clip.split] += 1
        self.examples[clip.split] += len(clip.examples)
        facts = made.facts
        self.counts.update(
            without_audio=not facts["has_audio"],
            without_video=not facts["has_video"],
            silent=facts["silent"],
            partial=bool(facts["partial"]),
            copied=facts["copied"],
        )
        self.counts["cut_short"] += _cut_short(clip, self.clip)

    def _reject(self, clip: Clip, reason: str, total: int) -> None:
        self.rejected.append((clip, reason))
        if len(self.rejected) > self.spec.max_rejected * total:
            title = (
                f"more than shards.max_rejected = {self.spec.max_rejected:g} of the {total} clips are unusable: mend "
                f"or remove these, or raise the limit. The first {len(self.rejected)}"
            )
            raise MirasolError(listing(title, self._rejected_lines(), 10))

    def _rejected_lines(self) -> list[str]:
        return [f"{_in_a_line(clip.media)} [{clip.key}]: {reason}" for clip, reason in self.rejected]

    def index(self) -> dict[str, Any]:
        """What ``shards.json`` says; nothing in it depends on when or where it was made."""
        return {
            "format": FORMAT,
            "clip": dataclasses.asdict(self.clip),
            "crf": self.spec.crf,
            "splits": {split: [tar for tar in self.tars if tar["split"] == split] for split in SPLITS},
            **({"storage": self.remote.url} if self.remote is not None else {}),
            "rejected": [
                {name: getattr(clip, name) for name in ("key", "media", "start", "end", "split")} | {"reason": reason}
                for clip, reason in self.rejected
            ],
            "versions": versions(),
        }

    def report(self, seconds: float) -> dict[str, Any]:
        """What ``reports/shards.json`` says."""
        clips = sum(self.splits.values())
        facts = ("without_audio", "without_video", "silent", "partial", "copied", "cut_short", "reused")
        return {
            "clips": clips,
            "splits": {split: self.splits[split] for split in SPLITS},
            "examples": {split: self.examples[split] for split in SPLITS},
            "rejected": len(self.rejected),
            "rejected_list": self._rejected_lines()[:LISTED],
            **{fact: self.counts[fact] for fact in facts},
            "bytes": self.bytes,
            **({"sent": self.sent} if self.remote is not None else {}),
            "shards": len(self.tars),
            "seconds": round(seconds, 2),
            "clips_per_second": round((clips + len(self.rejected)) / max(seconds, 1e-9), 1),
        }


def _in_a_line(media: str) -> str:
    """A name may hold line ends, and what moves a terminal's cursor."""
    return media if media.isprintable() else json.dumps(media)


def _cut_short(clip: Clip, spec: ClipSpec) -> bool:
    """Whether the clip's end lies after its T chunks: what comes behind them is never seen."""
    seen = spec.chunks * spec.chunk_seconds
    return spec.sampling == "rate" and clip.end is not None and clip.end - (clip.start or 0.0) > seen + SAME_TIME


def _check_splits(manifest: Path, asked: set[str], present: set[str]) -> None:
    """Refuse now what training would refuse after hours.

    Without test clips ``evaluate.split`` can be val. Test clips alone are a benchmark, which nobody trains on.
    """
    learning = (("train", "there is nothing to learn from"), ("val", "training cannot score itself"))
    scoring = (("test", "there is nothing to score"),)
    for split, why in scoring if asked == {"test"} else learning:
        if split not in present:
            raise MirasolError(
                f"{manifest}: no usable clip in the split {split}: {why}. Give some groups that split "
                "(where annotations give none, a hash of the group chooses, which with few groups may skip a split)"
            )
