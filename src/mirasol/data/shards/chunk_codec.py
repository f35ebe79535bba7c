"""From the files of a stored clip to arrays: all frames, those of one chunk, or the sound.

Hand-written mp4 tables: PyAV decodes frames while it opens and seeks, which for eight frames costs as much as the
frames themselves, and for a clip of 128 a tenth of them. ISO/IEC 14496-12 defines the boxes, 14496-15 the decoder's
configuration.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec

AVC1_HEADER = 78  # bytes of a video sample entry, before the boxes inside it
STREAM_HASH = slice(26, 42)  # of a FLAC file: the MD5 of its samples, at the end of STREAMINFO (RFC 9639)


def unpack_video(data: bytes, spec: ClipSpec, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The frames [N, size*3/2, size] of an mp4 from ``pack_video`` or ``copy_videos``.

    They are written to the beginning of ``into``, contiguous and large enough for T*K frames, if given.

    Raises:
        ValueError: the bytes are not such a video; FFmpeg's errors of damaged data are ValueErrors too.
    """
    # Frames are written once: copies and fresh memory would cost a third of decoding.
    shape = (spec.frames, spec.size * spec.size * 3 // 2)
    frames = _fill(frames_of(data, spec), np.empty(shape, np.uint8) if into is None else into.reshape(shape), spec.size)
    if not len(frames):
        raise ValueError("no frame in the video")
    return frames


def unpack_chunk(data: bytes, chunk: int, spec: ClipSpec) -> NDArray[np.uint8]:
    """The K frames [K, size*3/2, size] of chunk number ``chunk``, of an mp4 as :func:`unpack_video` takes it.

    Raises:
        ValueError: as :func:`unpack_video`, or the video has no such chunk.
    """
    target = np.empty((spec.frames_per_chunk, spec.size * spec.size * 3 // 2), np.uint8)
    frames = _fill(frames_of(data, spec, chunk), target, spec.size)
    if len(frames) != spec.frames_per_chunk:
        raise ValueError(f"chunk {chunk} has {len(frames)} of {spec.frames_per_chunk} frames")
    return frames


def _fill(frames: Iterable[VideoFrame], target: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The planes of ``frames`` in ``target`` [N, size*size*3/2]; returns the rows used [n, size*3/2, size]."""
    count = 0
    # Each row is one item: NumPy then copies a plane in one go instead of looping over rows of bytes.
    luma = target[:, : size * size].view(f"V{size}")  # [N, size]
    chroma = target[:, size * size :].view(f"V{size // 2}")  # [N, size]: all of U, then all of V
    for frame in frames:
        if count == len(target):
            raise ValueError(f"more than {count} frames")
        y, u, v = frame.planes
        luma[count] = _rows(y, luma.dtype, size)
        chroma[count, : size // 2] = _rows(u, chroma.dtype, size // 2)
        chroma[count, size // 2 :] = _rows(v, chroma.dtype, size // 2)
        count += 1
    return target[:count].reshape(count, size * 3 // 2, size)


def _rows(plane: Any, row: np.dtype[np.void], count: int) -> NDArray[np.void]:
    """The first ``count`` rows of a plane, without their padding."""
    return np.ndarray(count, row, plane, 0, (plane.line_size,))


def as_floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit samples as a waveform in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0


def unpack_samples(data: bytes) -> NDArray[np.int16]:
    """The samples [S] of a file from ``pack_audio``.

    Raises:
        ValueError: the bytes are not such a file; FFmpeg's errors of damaged data are ValueErrors too.
    """
    parts: list[NDArray[np.int16]] = []
    failed: ValueError | None = None
    with av.open(io.BytesIO(data), "r", format="flac", options={"protocol_whitelist": "file"}) as container:
        for packet in container.demux(audio=0):
            try:
                parts += [_mono(frame) for frame in packet.decode()]
            except ValueError as error:
                failed = failed or error
    samples = np.concatenate(parts) if parts else np.empty(0, np.int16)
    # A few bytes inside a frame may look like the start of one: FFmpeg's reader then hands out a part of it once more.
    if failed and hashlib.md5(samples.tobytes(), usedforsecurity=False).digest() != data[STREAM_HASH]:
        raise failed
    if not parts:
        raise ValueError("no sound in the file")
    return samples


def _mono(frame: Any) -> NDArray[np.int16]:
    if (frame.format.name, len(frame.layout.channels)) != ("s16", 1):
        raise ValueError(f"expected 16-bit samples of one channel, got {frame}")
    return np.frombuffer(frame.planes[0], np.int16, frame.samples)


def frames_of(data: bytes, spec: ClipSpec, chunk: int | None = None) -> Iterator[VideoFrame]:
    """The frames of the whole video, or of chunk number ``chunk``, which begins with a key frame.

    Raises:
        ValueError: the bytes are not such a video, it has no such chunk, or it is damaged.
    """
    configuration, places = packets_of(data)
    if chunk is not None:
        first, count = chunk * spec.frames_per_chunk, spec.frames_per_chunk
        if not 0 <= first <= len(places) - count:
            raise ValueError(f"no chunk {chunk}: the video has {len(places)} frames in chunks of {count}")
        places = places[first : first + count]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.extradata = configuration
    packets = (av.Packet(data[at : at + size]) for at, size in places)
    for packet in itertools.chain(packets, (None,)):
        for frame in decoder.decode(packet):
            if (frame.width, frame.height, frame.format.name) != (spec.size, spec.size, "yuv420p"):
                raise ValueError(f"expected yuv420p {spec.size}x{spec.size}, got {frame}")
            if frame.is_corrupt:
                raise ValueError(f"a frame of {'the video' if chunk is None else f'chunk {chunk}'} is damaged")
            yield frame


def packets_of(data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The decoder's configuration, and (offset, size) of every packet of the only track of an mp4, in order.

    Raises:
        ValueError: the bytes are not an mp4 with one track of H.264.
    """
    try:
        media = data
        for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            media = _box(media, name)
        entry = _box(_box(media, b"stsd")[8:], b"avc1")
        return _box(entry[AVC1_HEADER:], b"avcC"), _places(media, len(data))
    except (struct.error, IndexError) as error:
        raise ValueError(f"no table of packets: {error}") from error


def _places(tables: bytes, length: int) -> list[tuple[int, int]]:
    """Places from the tables of packet sizes, of groups of packets ("chunks" in the standard), and of group offsets."""
    same, count = struct.unpack_from(">II", _box(tables, b"stsz"), 4)
    sizes = np.full(count, same, np.int64) if same else _column(_box(tables, b"stsz")[12:], ">u4", count)
    wide = any(name == b"co64" for name, _ in _boxes(tables))
    starts = _box(tables, b"co64" if wide else b"stco")
    groups = _column(starts[8:], ">u8" if wide else ">u4", *struct.unpack_from(">I", starts, 4))
    runs = _box(tables, b"stsc")
    listed = _column(runs[8:], ">u4", 3 * struct.unpack_from(">I", runs, 4)[0]).reshape(-1, 3)
    ends = np.append(listed[1:, 0] - 1, len(groups))
    held = np.repeat(listed[:, 1], np.maximum(ends - (listed[:, 0] - 1), 0))[: len(groups)]
    if len(held) != len(groups) or held.sum() != count:
        raise ValueError(f"the tables name {held.sum()} packets in groups, and {count} sizes")
    before = np.cumsum(sizes) - sizes  # bytes of the packets before each
    leader = np.repeat(np.cumsum(held) - held, held)  # the first packet of each packet's group
    offsets = np.repeat(groups, held) + before - before[leader]
    if count and (offsets.min() < 0 or (offsets + sizes).max() > length):
        raise ValueError("a packet lies outside of the file")
    return list(zip(offsets.tolist(), sizes.tolist(), strict=True))


def _column(data: bytes, kind: str, count: int) -> NDArray[np.int64]:
    return np.frombuffer(data, kind, count).astype(np.int64)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and contents of each box."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            head, size = 16, struct.unpack_from(">Q", data, at + 8)[0]
        if size < head:
            raise ValueError(f"a box of {size} bytes")
        if name != b"mdat":
            yield name, data[at + head : at + size]
        at += size


def _box(data: bytes, name: bytes) -> bytes:
    """The contents of the only box ``name``."""
    found = [contents for kind, contents in _boxes(data) if kind == name]
    if len(found) != 1:
        raise ValueError(f"{len(found)} boxes {name.decode(errors='replace')!r}, expected one")
    return found[0]
