"""Reading shards: any clip of a split at random through the indexes, checked, decoded and cached."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.data.cache import ClipCache, Decoded, audio_shape, video_shape
from mirasol.data.chunks import unpack_chunk
from mirasol.data.failures import DamagedClip
from mirasol.data.features import SILENCE, black_frame, clip_audio
from mirasol.data.media import UNUSABLE, reason
from mirasol.data.pack import unpack_audio, unpack_video
from mirasol.data.shards import FORMAT, INDEX, INDEX_SUFFIX
from mirasol.data.spec import ClipSpec

OPEN_TARS = 64
NEEDED = ("examples", "has_video", "has_audio", "video_chunks", "audio_chunks", "chunks", "chunk_seconds", "sha256")
CACHE_BYTES = 4 << 30  # a split that would take more is decoded every time


@dataclass(frozen=True)
class ClipArrays(Decoded):
    """A decoded clip with what its JSON says (see :func:`mirasol.data.parts.make_part`)."""

    meta: dict[str, Any]


class ShardSet:
    """The clips of one split, by number, in the order of the manifest.

    Safe to use in several processes at once, forked or spawned.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        cache: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        any_size: bool = False,
    ) -> None:
        """Open ``folder``; with ``cache`` decoded clips are kept below it.

        A tar of another size than it was made with is an error, or with ``any_size`` a remark: what it still
        holds can be read, and each clip that it has lost is a :class:`DamagedClip` when it is read.

        Raises:
            MirasolError: the folder is no finished set of shards, or the split has no clip.
        """
        self.folder, self.split = Path(folder), split
        index = read_index(self.folder)
        self.spec = ClipSpec(**index["clip"])
        self._tars = [str(tar["name"]) for tar in index["splits"].get(split, [])]
        self.keys: list[str] = []
        self._places: list[tuple[int, dict[str, list[int]]]] = []  # number of the tar, {kind: [offset, size]}
        for number, tar in enumerate(index["splits"].get(split, [])):
            self._check_size(tar, any_size)
            for key, places in read_tar_index(self.folder / (tar["name"] + INDEX_SUFFIX)):
                self.keys.append(key)
                self._places.append((number, places))
        if not self.keys:
            raise MirasolError(
                f"{self.folder}: no clip in the split {split}: give some groups of the manifest this split"
            )
        self._files: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._process = os.getpid()
        self._cache: ClipCache | None = None
        if cache is not None:
            kept = ClipCache(cache, sha256_file(self.folder / INDEX), split, self.spec, len(self.keys))
            self._cache = kept if kept.bytes <= cache_bytes else None

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_files": collections.OrderedDict(), "_process": 0}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the tars; reading opens them again."""
        if getattr(self, "_process", None) == os.getpid():
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    def meta(self, index: int) -> dict[str, Any]:
        """What the JSON of clip ``index`` says: examples, times, presence, hashes, versions.

        Raises:
            DamagedClip: the tar is damaged; the message names it and the clip.
        """
        data = self._file(index, "json")
        try:
            meta: dict[str, Any] = json.loads(data)
            if meta["key"] != self.keys[index]:
                raise ValueError(f"holds clip {meta['key']}")
            if lost := [name for name in NEEDED if name not in meta]:
                raise ValueError(f"lacks {', '.join(lost)}")
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(index, "json", error) from error
        return meta

    def read(self, index: int) -> ClipArrays:
        """Frames and features of clip ``index``, and its JSON.

        Raises:
            DamagedClip: the tar is damaged; the message names it and the clip.
        """
        return ClipArrays(**vars(self.arrays(index)), meta=self.meta(index))

    def arrays(self, index: int) -> Decoded:
        """Frames and features of clip ``index``, from the cache where it has them.

        Raises:
            DamagedClip: the tar is damaged; the message names it and the clip.
        """
        kept = self._cache.read(index) if self._cache is not None else None
        if kept is not None:
            return kept
        clip = self._decode(index)
        if self._cache is not None:
            self._cache.write(index, clip)
        return clip

    def chunk(self, index: int, chunk: int) -> NDArray[np.uint8]:
        """The K frames [K, size*3/2, size] of one chunk of clip ``index``: no other frame is decoded.

        Raises:
            DamagedClip: the tar is damaged, or the clip has no such chunk; the message names it and the clip.
        """
        try:
            return unpack_chunk(self._hashed(index, "mp4", self.meta(index)), chunk, self.spec)
        except UNUSABLE as error:
            raise self._damaged(index, "mp4", error) from error

    def waveform(self, index: int) -> NDArray[np.float32] | None:
        """The sound [S] of clip ``index`` at the set's sample rate, or ``None``.

        Raises:
            DamagedClip: the tar is damaged; the message names it and the clip.
        """
        return self._waveform(index, self.meta(index))

    def _waveform(self, index: int, meta: dict[str, Any]) -> NDArray[np.float32] | None:
        if not meta["has_audio"]:
            return None
        try:
            return unpack_audio(self._hashed(index, "flac", meta))
        except UNUSABLE as error:
            raise self._damaged(index, "flac", error) from error

    def _decode(self, index: int) -> Decoded:
        spec, meta = self.spec, self.meta(index)
        seen, heard = int(meta["video_chunks"]), int(meta["audio_chunks"])
        video = audio = None
        if meta["has_video"]:
            shape = video_shape(spec)
            try:
                frames = unpack_video(self._hashed(index, "mp4", meta), spec)
                video = frames.reshape(meta["chunks"], *shape[1:])[:seen]
            except UNUSABLE as error:
                raise self._damaged(index, "mp4", error) from error
            if len(video) < spec.chunks:
                rest = (spec.chunks - len(video), *shape[1:])
                video = np.concatenate([video, np.broadcast_to(black_frame(spec.size), rest)])
        waveform = self._waveform(index, meta)
        if waveform is not None:
            audio = np.full(audio_shape(spec), SILENCE, np.float32)
            audio[:heard] = clip_audio(waveform, spec, meta["chunk_seconds"], heard)
        chunks = np.arange(spec.chunks)
        return Decoded(video, audio, chunks < seen * meta["has_video"], chunks < heard * meta["has_audio"])

    def _hashed(self, index: int, kind: str, meta: dict[str, Any]) -> bytes:
        data = self._file(index, kind)
        if hashlib.sha256(data).hexdigest() != meta["sha256"].get(kind):
            raise ValueError("the bytes do not match their hash")
        return data

    def _file(self, index: int, kind: str) -> bytes:
        """The bytes of one file of a clip."""
        number, places = self._places[index]
        if kind not in places:
            raise self._damaged(index, kind, ValueError("not in the index"))
        offset, size = places[kind]
        try:
            data = os.pread(self._tar(number), size, offset)
        except OSError as error:
            raise self._damaged(index, kind, error) from error
        if len(data) != size:
            raise self._damaged(index, kind, ValueError(f"{len(data)} bytes where {size} belong"))
        return data

    def _tar(self, number: int) -> int:
        if self._process != os.getpid():  # a forked process opens its own
            self._files, self._process = collections.OrderedDict(), os.getpid()
        if number in self._files:
            self._files.move_to_end(number)
            return self._files[number]
        file = os.open(self.folder / self._tars[number], os.O_RDONLY | os.O_CLOEXEC)
        self._files[number] = file
        if len(self._files) > OPEN_TARS:
            os.close(self._files.popitem(last=False)[1])
        return file

    def _check_size(self, tar: dict[str, Any], any_size: bool) -> None:
        path = self.folder / tar["name"]
        found = path.stat().st_size if path.is_file() else None
        if found != tar["bytes"]:
            state = "is missing" if found is None else f"has {found} bytes where {tar['bytes']} belong"
            if any_size and found is not None:
                print(f"{path} {state}: the clips that it has lost are damaged", file=sys.stderr)
                return
            raise MirasolError(
                f"{path} {state}: get it with `dvc checkout`, or make it again with `dvc repro -f shards`"
            )

    def _damaged(self, index: int, kind: str, error: BaseException) -> DamagedClip:
        path, key = self.folder / self._tars[self._places[index][0]], self.keys[index]
        return DamagedClip(
            f"{path}: clip {key}.{kind} is damaged: {reason(error)}. See what else is with "
            "`mirasol data check`, get the tar with `dvc checkout`, or make it again with `dvc repro -f shards`",
            key,
            f"{path.name}: {kind}: {reason(error)}",
        )


def read_index(folder: Path) -> dict[str, Any]:
    """``shards.json`` of a finished set.

    Raises:
        MirasolError: it is missing (the set is unfinished) or of another version.
    """
    path = folder / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, expected {FORMAT!r}")
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file: the shards are not made yet: `dvc repro shards`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MirasolError(f"{path}: no shards of this version ({error}): make them with `dvc repro shards`") from error
    return index


def read_tar_index(path: Path) -> list[tuple[str, dict[str, list[int]]]]:
    """(key, {kind: [offset, size]}) of every clip in a tar.

    Raises:
        MirasolError: the file is missing or damaged.
    """
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
        return [(str(key), {str(kind): [int(a), int(b)] for kind, (a, b) in places.items()}) for key, places in samples]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirasolError(f"{path}: no index of a tar ({error}): make it again with `dvc repro -f shards`") from error
