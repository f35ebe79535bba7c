"""A copy of a clip that every browser plays, for files of other formats."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from mirasol.media.container import UNUSABLE, MediaError, check_pixels, open_media, origin_of, reason, streams_of
from mirasol.media.sandbox import heartbeat, sandboxed

SIDE = 640  # pixels of the longer side
SECONDS = 120.0  # of a longer clip the beginning
RATE = 48_000
TICKS = Fraction(1, 90_000)


def preview(source: Path, target: Path) -> None:
    """Write the first two minutes of ``source`` to ``target``, an mp4 of H.264 and AAC, in the sandbox.

    Raises:
        MediaError: nothing of the file can be decoded.
    """
    sandboxed(write_preview, source, target)


def write_preview(source: Path, target: Path) -> None:
    """As :func:`preview`, in this process."""
    try:
        with open_media(source) as media, av.open(str(target), "w", format="mp4") as out:
            _copy(source, media, out)
    except UNUSABLE as error:
        raise MediaError(f"{source}: cannot be played: {reason(error)}") from error


def _copy(source: Path, media: av.container.InputContainer, out: av.container.OutputContainer) -> None:
    origin = origin_of(media)
    video, audio = streams_of(media)
    picture = sound = None
    if video is not None:
        width, height = video.codec_context.width, video.codec_context.height
        check_pixels(source, width, height)
        scale = min(1.0, SIDE / max(width, height))
        picture = out.add_stream("libx264", options={"preset": "veryfast", "crf": "26"})
        picture.width, picture.height = (max(2, round(side * scale / 2) * 2) for side in (width, height))
        picture.pix_fmt, picture.time_base = "yuv420p", TICKS
        picture.codec_context.time_base = TICKS
    if audio is not None:
        sound = out.add_stream("aac", rate=RATE, layout="stereo")
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE, frame_size=1024)
    last = -1
    for packet in media.demux([stream for stream in (video, audio) if stream is not None]):
        heartbeat()
        try:
            frames = packet.decode()
        except UNUSABLE:
            continue  # one damaged packet: the next may be good
        for frame in frames:
            if not isinstance(frame, av.VideoFrame | av.AudioFrame):
                continue
            time = (frame.time or 0.0) - origin
            if time > SECONDS:
                return _finish(out, picture, sound, resampler)
            if isinstance(frame, av.VideoFrame) and picture is not None:
                ticks = round(time / TICKS)
                if ticks > last:
                    last = ticks
                    frame = frame.reformat(picture.width, picture.height, "yuv420p")
                    frame.pts, frame.time_base, frame.pict_type = ticks, TICKS, 0
                    out.mux(picture.encode(frame))
            elif isinstance(frame, av.AudioFrame) and sound is not None:
                for block in resampler.resample(frame):
                    block.pts = None if block.pts is None else block.pts - round(origin * RATE)
                    out.mux(sound.encode(block))
    return _finish(out, picture, sound, resampler)


def _finish(
    out: av.container.OutputContainer,
    picture: av.VideoStream | None,
    sound: av.AudioStream | None,
    resampler: av.AudioResampler,
) -> None:
    if sound is not None:
        for block in resampler.resample(None):
            block.pts = None
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    if picture is not None:
        out.mux(picture.encode(None))
