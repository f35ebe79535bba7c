"""The built-in world's pictures, and the mp4 file of pictures and sound.

Pictures are drawn as YUV 4:2:0 in whole numbers, the format of the file, so that no scaling or conversion rounds them.
The codecs and their flags give the same bytes on any processor:

- x264 with a constant quantiser, one thread and no look-ahead: only its rate control uses floating point;
- FLAC with fixed predictors, which are integers; the encoder fits the others in floating point;
- the muxer's bit-exact flag: no times and no versions in the file.
"""

from __future__ import annotations

import io
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.data.world.scene import (
    FLASH_FRAMES,
    FLASH_GROWTH,
    FPS,
    FRAMES_PER_CHUNK,
    RADIUS,
    SAMPLE_RATE,
    SIZE,
    BaseScene,
    Thing,
)
from mirasol.data.world.sound import samples
from mirasol.media.container import PYAV_WHEEL

# (Y, U, V), BT.601 limited range: six hues a sixth of a turn apart.
PALETTE = {
    "red": (88, 96, 208),
    "yellow": (180, 48, 144),
    "green": (128, 72, 72),
    "cyan": (160, 160, 48),
    "blue": (80, 208, 112),
    "pink": (140, 176, 192),
    # The hard variant's.
    "orange": (132, 64, 184),
    "purple": (96, 176, 160),
    "black": (24, 128, 128),
    "white": (228, 128, 128),
}
FLASH_LUMA = 228
FLASH_CHROMA = 3  # a flash keeps a third of its colour
RING = 5  # pixels

VIDEO_CODEC: Final = "libx264"
X264 = (
    f"keyint={FRAMES_PER_CHUNK}:min-keyint={FRAMES_PER_CHUNK}:scenecut=0:open-gop=0:bframes=0:"
    "qp=20:threads=1:lookahead-threads=1:sliced-threads=0:rc-lookahead=0:sync-lookahead=0"
)
FLAC = {"compression_level": "2", "frame_size": "4096"}  # the highest level with fixed predictors; few blocks

Yuv = NDArray[np.uint8]


def render(scene: BaseScene) -> NDArray[np.uint8]:
    """The frames of a clip, uint8 RGB [frames, SIZE, SIZE, 3], before compression."""
    planes = render_yuv(scene).astype(np.int32)
    y = 298 * (planes[:, :SIZE] - 16)
    chroma = planes[:, SIZE:].reshape(scene.frames, 2, SIZE // 2, SIZE // 2) - 128
    u, v = chroma.repeat(2, axis=2).repeat(2, axis=3).swapaxes(0, 1)
    rgb = np.stack([y + 409 * v, y - 100 * u - 208 * v, y + 516 * u], axis=-1)
    frames: NDArray[np.uint8] = np.clip((rgb + 128) >> 8, 0, 255).astype(np.uint8)
    return frames


def render_yuv(scene: BaseScene) -> Yuv:
    """The frames of a clip in the format of the file, planar YUV 4:2:0, uint8 [frames, SIZE*3/2, SIZE]."""
    inks = [(scene.background, 128, 128), (0, 128, 128)]
    label = np.zeros((scene.frames, SIZE, SIZE), np.uint8)
    if scene.ring:
        inks[1] = PALETTE[scene.ring]
        first = label[:FRAMES_PER_CHUNK]
        first[:, :RING] = first[:, -RING:] = first[:, :, :RING] = first[:, :, -RING:] = 1
    for thing in scene.things:
        y, u, v = PALETTE[thing.colour]
        inks += [(y, u, v), (FLASH_LUMA, 128 + (u - 128) // FLASH_CHROMA, 128 + (v - 128) // FLASH_CHROMA)]
        _draw(label, thing, len(inks) - 2)
    ink = np.array(inks, np.uint8)
    luma = ink[:, 0][label]
    # A chroma sample is the mean of its four pixels.
    four = ink[:, 1:].astype(np.int32)[label].reshape(scene.frames, SIZE // 2, 2, SIZE // 2, 2, 2).sum(axis=(2, 4))
    chroma = ((four + 2) >> 2).astype(np.uint8)
    return np.concatenate([luma, chroma.transpose(0, 3, 1, 2).reshape(scene.frames, SIZE // 2, SIZE)], axis=1)


def _draw(label: Yuv, thing: Thing, ink: int) -> None:
    """Write ``ink``, or ``ink + 1`` where it flashes, into the pixels of ``thing``."""
    for k, (x, y) in enumerate(thing.path):
        bright = thing.flash is not None and thing.flash <= k < thing.flash + FLASH_FRAMES
        radius = RADIUS[thing.size] + (FLASH_GROWTH if bright else 0)
        x0, y0 = x - radius, y - radius  # the stamp's corner, perhaps outside the picture
        left, right = max(x0, 0), min(x + radius + 1, SIZE)
        top, bottom = max(y0, 0), min(y + radius + 1, SIZE)
        if left < right and top < bottom:
            mask = STAMPS[thing.shape, radius][top - y0 : bottom - y0, left - x0 : right - x0]
            label[k, top:bottom, left:right][mask] = ink + bright


def _stamp(shape: str, radius: int) -> NDArray[np.bool_]:
    side = np.arange(-radius, radius + 1)
    if shape == "square":
        return np.ones((len(side), len(side)), bool)
    return side[:, None] ** 2 + side[None] ** 2 <= radius * radius + radius


STAMPS = {
    (shape, radius + growth): _stamp(shape, radius + growth)
    for shape in ("disc", "square")
    for radius in RADIUS.values()
    for growth in (0, FLASH_GROWTH)
}


def encode(scene: BaseScene) -> bytes:
    """The mp4 file of a clip: H.264 with one closed GOP per chunk, and FLAC if it has a track.

    Raises:
        MirasolError: PyAV's FFmpeg lacks an encoder.
    """
    file = io.BytesIO()
    # Without the bit-exact flag the muxer writes its version.
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        try:
            video = container.add_stream(VIDEO_CODEC, rate=FPS, options={"preset": "ultrafast", "x264-params": X264})
            audio = None
            if scene.has_audio:
                audio = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options=FLAC)
        except av.codec.codec.UnknownCodecError as error:
            raise MirasolError(
                f"PyAV has no encoder {error}: the world needs libx264 and flac. Install PyAV's own wheel "
                f"(`{PYAV_WHEEL}`), then see `mirasol doctor`"
            ) from error
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        for planes in render_yuv(scene):
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(samples(scene)[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = 0  # without a time the encoder's closing packet has none, and the muxer refuses it
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return file.getvalue()
