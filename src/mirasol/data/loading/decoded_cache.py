"""Decoded clips on disk: what the first epoch decodes, later epochs, phases and evaluation only read.

One sparse file per split with a record of fixed size per clip: checksum, flags, presence, frames, features; and
another of the same kind for clips with waveforms.
A record is written by one call and counts only if its checksum holds, so that any number of processes may
write at once and a kill or a power cut at any moment costs a decoding, never a wrong clip.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirasol.data.loading.waveform import Waveform, chunk_lengths, chunks_shape, feature_grid
from mirasol.media.clip import ClipSpec

LAYOUT = "clips-1"  # of a record, and of the features in it: change it when either changes
FORMS = {False: "clips", True: "waves-1"}  # with features, or with waveforms: the file of a split
HEAD = struct.Struct("<II")  # checksum of the rest, flags
HAS_VIDEO, HAS_AUDIO, WRITTEN = 1, 2, 4


@dataclass(frozen=True)
class Decoded:
    """A clip as numbers: T chunks of K frames, A audio columns, M mels; black and silent where absent."""

    video: NDArray[np.uint8] | None  # [T, K, size*3/2, size]; None without a picture
    audio: NDArray[np.float32] | None  # [T, A, M]; None without sound, or where `waveform` stands for it
    video_present: NDArray[np.bool_]  # [T]
    audio_present: NDArray[np.bool_]  # [T]
    waveform: Waveform | None = None  # for who asked for it, of a clip with sound


def video_shape(spec: ClipSpec) -> tuple[int, int, int, int]:
    """T, K, rows and columns of a clip's planar frames."""
    return spec.chunks, spec.frames_per_chunk, spec.size * 3 // 2, spec.size


def audio_shape(spec: ClipSpec) -> tuple[int, int, int]:
    """T, A, M of a clip's features."""
    return spec.chunks, spec.audio_columns, spec.mels


class DecodedCache:
    """Decoded clips of one split, by number. Opened again in every process that uses it."""

    def __init__(
        self, root: Path, identity: str, split: str, spec: ClipSpec, clips: int, *, waveform: bool = False
    ) -> None:
        """``identity`` is the hash of what the clips were made from; caches of another are removed."""
        self.spec, self.waveform = spec, waveform
        sound = 2 * int(np.prod(chunks_shape(spec))) if waveform else 4 * int(np.prod(audio_shape(spec)))
        sizes = [spec.chunks, spec.chunks, int(np.prod(video_shape(spec))), sound]
        self._cuts = [HEAD.size, *(HEAD.size + int(n) for n in np.cumsum(sizes))]
        self.record = self._cuts[-1]
        name = hashlib.sha256(f"{LAYOUT} {identity}".encode()).hexdigest()[:16]
        self.path = root / name / f"{split}.{FORMS[waveform]}"
        self.bytes = self.record * clips
        self._file: int | None = None
        self._process = 0
        for other in root.glob("[0-9a-f]" * 16):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_file": None, "_process": 0}

    def read(self, index: int) -> Decoded | None:
        """Clip ``index``, or ``None`` where it was not written or does not match its checksum."""
        file = self._open()
        if file is None:
            return None
        with contextlib.suppress(OSError):
            record = bytearray(self.record)
            if os.preadv(file, [record], index * self.record) != self.record:
                return None
            checksum, flags = HEAD.unpack_from(record)
            if not flags & WRITTEN or zlib.crc32(memoryview(record)[4:]) != checksum:
                return None
            rest = np.frombuffer(record, np.uint8)
            video_present, audio_present, video, audio = (
                rest[low:high] for low, high in zip(self._cuts, self._cuts[1:], strict=False)
            )
            heard = audio_present.astype(bool)
            return Decoded(
                video.reshape(video_shape(self.spec)) if flags & HAS_VIDEO else None,
                audio.view(np.float32).reshape(audio_shape(self.spec))
                if flags & HAS_AUDIO and not self.waveform
                else None,
                video_present.astype(bool),
                heard,
                self._waveform(audio, heard) if flags & HAS_AUDIO and self.waveform else None,
            )
        return None

    def write(self, index: int, clip: Decoded) -> None:
        """Keep clip ``index``. A disk that is full or read-only means that nothing more is kept."""
        file = self._open()
        if file is None:
            return
        record = bytearray(self.record)
        sound = clip.audio if clip.waveform is None else clip.waveform.chunks
        parts = (clip.video_present, clip.audio_present, clip.video, sound)
        for (low, high), part in zip(zip(self._cuts, self._cuts[1:], strict=False), parts, strict=True):
            if part is not None:
                record[low:high] = np.ascontiguousarray(part).tobytes()
        flags = WRITTEN | HAS_VIDEO * (clip.video is not None) | HAS_AUDIO * (sound is not None)
        HEAD.pack_into(record, 0, 0, flags)
        HEAD.pack_into(record, 0, zlib.crc32(memoryview(record)[4:]), flags)
        try:
            os.pwrite(file, record, index * self.record)
        except OSError:
            self._close()

    def _waveform(self, data: NDArray[np.uint8], heard: NDArray[np.bool_]) -> Waveform:
        chunks = data.view(np.int16).reshape(1, *chunks_shape(self.spec))
        return Waveform(chunks, (chunk_lengths(self.spec) * heard)[None], feature_grid(self.spec))

    def _open(self) -> int | None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._file = None  # a forked process opens its own
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                if os.fstat(self._file).st_size != self.bytes:
                    os.ftruncate(self._file, self.bytes)  # sparse: takes room as clips are written
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
