"""Reading shards: any clip of a split at random through the indexes, checked, decoded and cached."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.data.loading.decoded_cache import Decoded, DecodedCache, audio_shape, video_shape
from mirasol.data.loading.facts import FOLDER, LAYOUT, Places, Table, facts_of, kept, places_of, tokens_of
from mirasol.data.loading.reader import ShardReader
from mirasol.data.loading.waveform import cut
from mirasol.data.shards.chunk_codec import as_floats, unpack_chunk, unpack_samples, unpack_video
from mirasol.data.shards.format import INDEX, DamagedClip, read_index
from mirasol.media.clip import ClipSpec, View
from mirasol.media.container import UNUSABLE, reason
from mirasol.media.log_mel import SILENCE, black_frame, clip_audio

if TYPE_CHECKING:
    from mirasol.tokenizer import Tokenizer

UNHASHED = "the bytes do not match their hash"
NEEDED = ("examples", "has_video", "has_audio", "video_chunks", "audio_chunks", "chunks", "chunk_seconds", "sha256")
WHOLE = View()
CACHE_BYTES = 4 << 30  # a larger split is decoded every time


@dataclass(frozen=True)
class ClipArrays(Decoded):
    """A decoded clip with its JSON (see :func:`mirasol.data.shards.encode.encode_slice`)."""

    meta: dict[str, Any] = field(kw_only=True)


class ShardDataset:
    """The clips of one split, by number, in the order of the manifest. Safe in several processes, forked or spawned.

    Each method that reads a clip raises :class:`DamagedClip` with the tar and the clip if the tar is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        cache: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        any_size: bool = False,
        view: View = WHOLE,
    ) -> None:
        """Open ``folder``.

        Args:
            cache: folder for decoded clips and for copies of tars behind a URL; without it those are read by range.
            any_size: accept a tar of another size, with a warning: its lost clips are damaged when read.
            view: what to see of each clip; ``spec`` describes it, ``stored`` the clips at rest.

        Raises:
            MirasolError: the shards are unfinished, the split has no clip, the view does not fit the clips, or the
                store of the tars is unreachable.
        """
        self.folder, self.split = Path(folder), split
        index = read_index(self.folder)
        self.stored = ClipSpec(**index["clip"])
        try:
            self.spec = view.of(self.stored)
        except ValueError as error:
            raise MirasolError(f"{self.folder}: {error}") from error
        self._tars = ShardReader(self.folder, index, split, copies=cache, any_size=any_size)
        self._identity = sha256_file(self.folder / INDEX)
        self._kept = None if cache is None else cache / FOLDER
        self._bind(Table({}, {}))
        if self._kept is None:
            self._bind(Table(places_of(self._tars.clips()), {}))
        else:
            self._bind(kept(self._kept, f"{self._name()}.facts", self._read_facts, f"{split}-*", self._holds))
        if not self.keys:
            raise MirasolError(
                f"{self.folder}: no clip in the split {split}: give some groups of the manifest this split"
            )
        self._caches: dict[bool, DecodedCache] = {}  # of clips with features, and with waveforms
        if cache is not None:
            for waveform in (False, True) if self.stored.sampling == "rate" else (False,):
                decoded = DecodedCache(cache, self._identity, split, self.stored, len(self.keys), waveform=waveform)
                if decoded.bytes <= cache_bytes:
                    self._caches[waveform] = decoded

    def _name(self) -> str:
        """Begins the names of files with facts of these clips: another state of a tar has another."""
        state = json.dumps([LAYOUT, self._identity, self._tars.state()])
        return f"{self.split}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"

    def _holds(self, table: Table) -> bool:
        """Whether the damage in ``table`` is still there, and was no read error that has passed."""
        self._bind(table)
        for number, _ in table.notes["damaged"]:
            with contextlib.suppress(DamagedClip):
                self.meta(number)
                return False
        return True

    def _bind(self, table: Table) -> None:
        self._table, self._places = table, Places(table)
        self.keys = self._places.keys

    def _read_facts(self) -> Table:
        """Places and facts of all clips, from indexes and JSON."""
        places = places_of(self._tars.clips()) if "tars" not in self._table.arrays else self._table.arrays
        self._bind(Table(places, {}))
        facts = facts_of(len(self), self.meta)
        found = Table(places | facts.arrays, facts.notes)
        return Table(found.arrays, {**facts.notes, "digest": found.digest()})

    @property
    def facts(self) -> Table:
        """What :func:`mirasol.data.loading.facts.facts_of` says; with a cache it is mapped, without it made once."""
        if "tasks" not in self._table.arrays:
            self._bind(self._read_facts())
        return self._table

    def tokens(self, tokenizer: Tokenizer) -> Table:
        """:func:`mirasol.data.loading.facts.tokens_of` the texts of all clips."""
        facts = self.facts
        make = functools.partial(tokens_of, facts, tokenizer)
        if self._kept is None or facts.path is None:
            return make()
        words = hashlib.sha256(repr((LAYOUT, tokenizer._texts, tokenizer._scores)).encode()).hexdigest()[:16]
        return kept(self._kept, f"{facts.path.stem}-{words}.tokens", make, f"{self.split}-*.tokens")

    def __len__(self) -> int:
        return len(self.keys)

    def keys_in(self, tar: str) -> list[str]:
        """The keys of the clips in a tar; none for an unknown name."""
        numbers = [number for number, name in enumerate(self._tars.names) if name == tar]
        return [self.keys[int(i)] for i in np.flatnonzero(np.isin(self._table.arrays["tars"], numbers))]

    def close(self) -> None:
        """Close the tars; reading opens them again."""
        self._tars.close()

    def meta(self, index: int) -> dict[str, Any]:
        """The JSON of clip ``index``: examples, times, presence, hashes, versions."""
        data = self._file(index, "json")
        try:
            digest = self._places[index][1].json
            if digest and hashlib.sha256(data).digest() != digest:
                raise ValueError(UNHASHED)
            meta: dict[str, Any] = json.loads(data)
            if meta["key"] != self.keys[index]:
                raise ValueError(f"holds clip {meta['key']}")
            if lost := [name for name in NEEDED if name not in meta]:
                raise ValueError(f"lacks {', '.join(lost)}")
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(index, "json", error) from error
        return meta

    def read(self, index: int) -> ClipArrays:
        """Frames and features of clip ``index``, and its JSON."""
        return ClipArrays(**vars(self.arrays(index)), meta=self.meta(index))

    def arrays(
        self, index: int, *, waveform: bool = False, into: NDArray[np.uint8] | None = None, later: int = 0
    ) -> Decoded:
        """Frames and features of clip ``index``, or with ``waveform`` frames and sound; from the cache if possible.

        Args:
            index: number of the clip.
            waveform: sound in place of features.
            into: contiguous [T, K, size*3/2, size], where frames that need no more work than decoding come to lie.
            later: chunks at its beginning that are left out.

        Raises:
            ValueError: ``waveform`` under ``clip.sampling: spread``, where chunks of each clip have their own length.
        """
        if waveform and self.spec.sampling != "rate":
            raise ValueError(f"waveforms make a batch under clip.sampling rate alone, this is {self.spec.sampling}")
        clip = self._whole(index, waveform, into if self.spec == self.stored else None)
        if not later and self.spec == self.stored:
            return clip
        from mirasol.data.loading.view import starting_later, viewed  # clips seen whole do without

        return viewed(starting_later(clip, later), self.stored, self.spec)

    def _whole(self, index: int, waveform: bool, into: NDArray[np.uint8] | None) -> Decoded:
        """Clip ``index`` as it is at rest."""
        cache = self._caches.get(waveform)
        kept = cache.read(index) if cache is not None else None
        if kept is not None:
            return kept
        clip = self._decode(index, waveform, into)
        if cache is not None:
            cache.write(index, clip)
        return clip

    def verify(self, index: int) -> None:
        """Compare the files of clip ``index`` with their hashes, without decoding."""
        meta = self.meta(index)
        for kind, has in (("mp4", meta["has_video"]), ("flac", meta["has_audio"])):
            if has:
                try:
                    self._hashed(index, kind, meta)
                except ValueError as error:
                    raise self._damaged(index, kind, error) from error

    def chunk(self, index: int, chunk: int) -> NDArray[np.uint8]:
        """The K frames [K, size*3/2, size] of one chunk of clip ``index`` at rest, decoded alone.

        A chunk that is not there is damage.
        """
        try:
            return unpack_chunk(self._hashed(index, "mp4", self.meta(index)), chunk, self.stored)
        except UNUSABLE as error:
            raise self._damaged(index, "mp4", error) from error

    def waveform(self, index: int) -> NDArray[np.float32] | None:
        """The sound [S] of clip ``index`` at the sample rate of the shards, or ``None``."""
        samples = self._samples(index, self.meta(index))
        return None if samples is None else as_floats(samples)

    def _samples(self, index: int, meta: dict[str, Any]) -> NDArray[np.int16] | None:
        if not meta["has_audio"]:
            return None
        try:
            return unpack_samples(self._hashed(index, "flac", meta))
        except UNUSABLE as error:
            raise self._damaged(index, "flac", error) from error

    def _decode(self, index: int, waveform: bool, into: NDArray[np.uint8] | None) -> Decoded:
        spec, meta = self.stored, self.meta(index)
        video_chunks, audio_chunks = int(meta["video_chunks"]), int(meta["audio_chunks"])
        video = audio = sound = None
        if meta["has_video"]:
            video = np.empty(video_shape(spec), np.uint8) if into is None else into
            try:
                frames = unpack_video(self._hashed(index, "mp4", meta), spec, video)
                if len(frames) != (expected := meta["chunks"] * spec.frames_per_chunk):
                    raise ValueError(f"{len(frames)} frames, expected {expected}")
            except UNUSABLE as error:
                raise self._damaged(index, "mp4", error) from error
            video[min(video_chunks, meta["chunks"]) :] = black_frame(spec.size)
        samples = self._samples(index, meta)
        if samples is not None and waveform:
            sound = cut(samples, spec, audio_chunks)
        elif samples is not None:
            audio = np.full(audio_shape(spec), SILENCE, np.float32)
            audio[:audio_chunks] = clip_audio(as_floats(samples), spec, meta["chunk_seconds"], audio_chunks)
        chunks = np.arange(spec.chunks)
        present = (chunks < video_chunks * meta["has_video"], chunks < audio_chunks * meta["has_audio"])
        return Decoded(video, audio, *present, sound)

    def _hashed(self, index: int, kind: str, meta: dict[str, Any]) -> bytes:
        data = self._file(index, kind)
        if hashlib.sha256(data).hexdigest() != meta["sha256"].get(kind):
            raise ValueError(UNHASHED)
        return data

    def _file(self, index: int, kind: str) -> bytes:
        """The bytes of one file of a clip."""
        number, entry = self._places[index]
        if kind not in entry.places:
            raise self._damaged(index, kind, ValueError("not in the index"))
        offset, size = entry.places[kind]
        try:
            data = self._tars.read(number, offset, size)
        except OSError as error:
            raise self._damaged(index, kind, error) from error
        if len(data) != size:
            raise self._damaged(index, kind, ValueError(f"{len(data)} bytes, expected {size}"))
        return data

    def _damaged(self, index: int, kind: str, error: BaseException) -> DamagedClip:
        number, key = self._places[index][0], self.keys[index]
        return DamagedClip(
            f"{self._tars.where(number)}: clip {key}.{kind} is damaged: {reason(error)}. `mirasol data check` lists "
            "all damage and how to repair it",
            key,
            f"{self._tars.names[number]}: {kind}: {reason(error)}",
        )
