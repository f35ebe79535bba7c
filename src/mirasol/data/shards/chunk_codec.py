"""The frames of a clip at rest, all or those of one chunk: their packets are found through the tables of the mp4.

FFmpeg's own way, opening the file and seeking, decodes frames to learn what they are; for eight frames that costs as
much as the frames themselves, for a clip of 128 a tenth of them. ISO/IEC 14496-12 has the boxes, 14496-15 the decoder's
configuration.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from mirasol.media.clip import ClipSpec
from mirasol.media.resample import center_crop

AVC1_HEADER = 78  # bytes of a sample entry of pictures, before the boxes inside it


def unpack_chunk(data: bytes, chunk: int, spec: ClipSpec) -> NDArray[np.uint8]:
    """The K frames [K, size*3/2, size] of chunk number ``chunk``, of an mp4 as ``unpack_video`` takes it.

    Raises:
        ValueError: the bytes are no such video, or it has no such chunk; FFmpeg's errors are ValueErrors too.
    """
    frames = list(frames_of(data, spec, chunk))
    if len(frames) != spec.frames_per_chunk:
        raise ValueError(f"chunk {chunk} has {len(frames)} of {spec.frames_per_chunk} frames")
    return np.stack([center_crop(frame, spec.size) for frame in frames])


def frames_of(data: bytes, spec: ClipSpec, chunk: int | None = None) -> Iterator[VideoFrame]:
    """The frames of the whole video, or those of chunk number ``chunk``, which begins with a key frame.

    Raises:
        ValueError: the bytes are no such video, it has no such chunk, or it is damaged; FFmpeg's errors of damaged data
            are ValueErrors too.
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
    """The decoder's configuration, and offset and size of every packet of the only track of an mp4, in order.

    Raises:
        ValueError: the bytes are no mp4 with one track of H.264.
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
    """From the tables of sizes, of groups of packets ("chunks" there), and of where these lie."""
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
    leader = np.repeat(np.cumsum(held) - held, held)  # the first packet of each one's group
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
