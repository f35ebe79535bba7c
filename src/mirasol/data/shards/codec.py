"""A clip at rest: frames as H.264 with one closed GOP per chunk, sound as FLAC, and back again.

One closed GOP per chunk makes every chunk a point of entry: a chunk costs its own K frames and no more.
The same frames, settings and library versions give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from mirasol.data.shards.chunk_codec import frames_of
from mirasol.media.clip import ClipSpec
from mirasol.media.codecs import require_codec
from mirasol.media.container import UNUSABLE, origin_of, streams_of
from mirasol.media.resample import SAME_TIME, UPRIGHT, rotation_of
from mirasol.media.sandbox import heartbeat

FLAC_BLOCK = 4096  # samples; many small blocks cost time
IDR, SLICE_TYPES = 5, range(1, 6)  # H.264 NAL unit types
NO_VERSIONS = {"fflags": "+bitexact"}  # else the muxer writes its version and random ids
# Decoding speed counts more than bytes: a clip is encoded once and read every epoch.
X264 = {"preset": "veryfast", "tune": "fastdecode"}
# x264's macroblock tree reads memory that nobody wrote, so that equal frames give other bytes now and then (docs/
# decisions/0035); without it the lookahead has no use either.
SAME_BYTES = "mbtree=0:rc-lookahead=0"
# What flatters the eye costs bytes and is noise to a model: docs/decisions/0039.
FAITHFUL = "psy=0:aq-mode=0"


def encoder_options(spec: ClipSpec, crf: int) -> dict[str, str]:
    """Options of libx264: one closed GOP per chunk, no B-frames, one thread."""
    gop = spec.frames_per_chunk
    shape = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:threads=1:open-gop=0"
    return X264 | {"crf": str(crf), "x264-params": f"{shape}:{SAME_BYTES}:{FAITHFUL}"}


def pack_video(frames: NDArray[np.uint8], spec: ClipSpec, crf: int) -> bytes:
    """An mp4 of planar YUV 4:2:0 ``frames`` [N, size*3/2, size], a closed GOP every K frames, no B-frames.

    Raises:
        MirasolError: this PyAV has no libx264.
    """
    require_codec("libx264", "w")
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options=NO_VERSIONS) as container:
        stream: Any = container.add_stream("libx264", rate=_rate(spec))
        stream.width = stream.height = spec.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.options = encoder_options(spec, crf)
        for index, picture in enumerate(frames):
            heartbeat()
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="yuv420p")
            frame.color_range = ColorRange.MPEG
            frame.pts = index
            frame.time_base = 1 / _rate(spec)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def conforms(container: InputContainer, spec: ClipSpec) -> bool:
    """Whether a file may hold clips as :func:`pack_video` makes them, as far as its header tells.

    That is: H.264, yuv420p of limited range, ``size`` x ``size`` square pixels, under ``clip.sampling: rate``.
    """
    video, _ = streams_of(container)
    return (
        spec.sampling == "rate"
        and video is not None
        and (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        and (video.width, video.height, video.sample_aspect_ratio or 1) == (spec.size, spec.size, 1)
        and (video.codec_context.color_range or ColorRange.MPEG) == ColorRange.MPEG
    )


def copy_videos(
    container: InputContainer, spans: Sequence[tuple[float | None, float | None]], spec: ClipSpec
) -> list[bytes | None]:
    """The packets of each clip of a file that :func:`conforms` and has not been read yet, or ``None``.

    Copied are clips of exactly ``fps`` upright frames a second, no B-frames, an IDR frame at every chunk's start, and
    all T chunks there.
    """
    copies: list[bytes | None] = []
    for number, (start, end) in enumerate(spans):
        try:
            if end is not None and end - (start or 0.0) < spec.chunks * spec.chunk_seconds:
                copies.append(None)
                continue
            origin = origin_of(container) + (start or 0.0)
            if start or number:
                container.seek(int(origin * av.time_base), backward=True)
            copies.append(_copy(container, origin, spec))
        except UNUSABLE:
            copies.append(None)  # decoding, which comes next, says what is wrong
    return copies


def _copy(container: InputContainer, origin: float, spec: ClipSpec) -> bytes | None:
    video, _ = streams_of(container)
    packets = _exact_packets(container.demux(video), origin, spec)
    if packets is None:
        return None
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options=NO_VERSIONS) as out:
        stream = out.add_stream_from_template(video)
        first = packets[0].pts
        for packet in packets:
            packet.stream = stream
            packet.pts = packet.dts = packet.pts - first
            out.mux(packet)
    # Decoded once here, so that damage is met when the shard is made and not in training.
    return target.getvalue() if _whole(target.getvalue(), spec) else None


def _whole(data: bytes, spec: ClipSpec) -> bool:
    """Whether an mp4 decodes to N upright frames of the clip's size. The frames are not kept: copying them costs."""
    wanted, count = (spec.size, spec.size, "yuv420p", UPRIGHT, False), 0
    with av.open(io.BytesIO(data), "r", format="mp4", options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            heartbeat()
            if (frame.width, frame.height, frame.format.name, rotation_of(frame), frame.is_corrupt) != wanted:
                return False
            count += 1
    return count == spec.frames


def unpack_video(data: bytes, spec: ClipSpec, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The frames [N, size*3/2, size] of an mp4 made by :func:`pack_video` or :func:`copy_videos`.

    They lie at the beginning of ``into``, contiguous and with room for T*K frames, where it is given.

    Raises:
        ValueError: the bytes are no such video; FFmpeg's errors of damaged data are ValueErrors too.
    """
    size, count = spec.size, 0
    shape = (spec.frames, size * size * 3 // 2)  # written once: copies and fresh memory cost a third of decoding
    pictures = np.empty(shape, np.uint8) if into is None else into.reshape(shape)
    # A row is one item: NumPy then copies a plane in one go, where rows of bytes cost it a loop each.
    luma = pictures[:, : size * size].view(f"V{size}")  # [N, size]
    chroma = pictures[:, size * size :].view(f"V{size // 2}")  # [N, size]: all of U, then all of V
    for frame in frames_of(data, spec):
        if count == spec.frames:
            raise ValueError(f"more than {count} frames")
        y, u, v = frame.planes
        luma[count] = _rows(y, luma.dtype, size)
        chroma[count, : size // 2] = _rows(u, chroma.dtype, size // 2)
        chroma[count, size // 2 :] = _rows(v, chroma.dtype, size // 2)
        count += 1
    if not count:
        raise ValueError("no frame in the video")
    return pictures[:count].reshape(count, size * 3 // 2, size)


def _rows(plane: Any, row: np.dtype[np.void], count: int) -> NDArray[np.void]:
    """The first ``count`` rows of a plane, without what pads them."""
    return np.ndarray(count, row, plane, 0, (plane.line_size,))


def pack_audio(waveform: NDArray[np.float32], sample_rate: int) -> bytes:
    """A 16-bit FLAC file of a mono waveform in [-1, 1]; louder samples are clipped.

    Raises:
        MirasolError: this PyAV has no FLAC encoder.
    """
    require_codec("flac", "w")
    samples = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
    target = io.BytesIO()
    with av.open(target, "w", format="flac", options=NO_VERSIONS) as container:
        stream: Any = container.add_stream("flac", rate=sample_rate, layout="mono", format="s16")
        stream.codec_context.options = {"frame_size": str(FLAC_BLOCK)}
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def unpack_audio(data: bytes) -> NDArray[np.float32]:
    """The waveform [S] of a file made by :func:`pack_audio`.

    Raises:
        ValueError: the bytes are no such file; FFmpeg's errors of damaged data are ValueErrors too.
    """
    return as_floats(unpack_samples(data))


def as_floats(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit samples as a waveform in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0


def unpack_samples(data: bytes) -> NDArray[np.int16]:
    """The samples [S] as the file has them.

    Raises:
        ValueError: as :func:`unpack_audio`.
    """
    with av.open(io.BytesIO(data), "r", format="flac", options={"protocol_whitelist": "file"}) as container:
        parts = [_mono(frame) for frame in container.decode(audio=0)]
    if not parts:
        raise ValueError("no sound in the file")
    return np.concatenate(parts)


def _mono(frame: Any) -> NDArray[np.int16]:
    if (frame.format.name, len(frame.layout.channels)) != ("s16", 1):
        raise ValueError(f"expected 16-bit samples of one channel, got {frame}")
    return np.frombuffer(frame.planes[0], np.int16, frame.samples)


def _rate(spec: ClipSpec) -> Fraction:
    return Fraction(spec.fps).limit_denominator(1001)


def _exact_packets(demuxed: Any, origin: float, spec: ClipSpec) -> list[Any] | None:
    """The N packets that start at ``origin``, if each lies where a frame belongs and chunks start with IDR."""
    packets: list[Any] = []
    for packet in demuxed:
        if packet.pts is None or packet.dts is None or packet.is_corrupt or packet.is_discard:
            return None
        time = float(packet.pts * packet.time_base) - origin
        if time < -SAME_TIME:
            continue
        index = len(packets)
        if packet.pts != packet.dts or abs(time - index / spec.fps) > SAME_TIME:
            return None
        if index % spec.frames_per_chunk == 0 and not _is_idr(bytes(packet)):
            return None
        packets.append(packet)
        if len(packets) == spec.frames:
            return packets
    return None


def _is_idr(data: bytes) -> bool:
    """Whether the first slice of an mp4 packet (NAL units behind four-byte lengths) is IDR."""
    at = 0
    while at + 4 < len(data):
        kind = data[at + 4] & 0x1F
        if kind in SLICE_TYPES:
            return kind == IDR
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return False
