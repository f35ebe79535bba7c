"""Small pictures for the report: clips as strips of frames, spectrograms, heat, as PNG files."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

Image = NDArray[np.uint8]

STRIP_FRAMES = 16
STRIP_SIDE = 48  # pixels; the page enlarges them without smoothing
SPECTROGRAM_COLUMNS = 256
HEAT = (255, 140, 0)  # orange: seen on dark and on light
DARKEST, LUKEWARM, BRIGHTEST = 0.55, 0.2, 0.75  # opacity without heat, the level that changes nothing, and at the top
# From silence to loud, dark to bright: evenly spaced anchors of the spectrogram's colours.
_ANCHORS = ((18, 14, 36), (52, 22, 92), (116, 30, 110), (186, 48, 84), (233, 96, 44), (250, 168, 40), (255, 240, 168))


def png(image: Image) -> bytes:
    """A PNG file of an image, uint8 [H, W, 3] (RGB) or [H, W, 4] (RGB and opacity)."""
    if image.shape[2:] not in ((3,), (4,)) or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 [H, W, 3 or 4], got {image.dtype} {list(image.shape)}")
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(file: bytes, kind: str = "image/png") -> str:
    """The file as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(file).decode('ascii')}"


def rgb(frames: Image) -> Image:
    """Planar YUV 4:2:0 (limited range, BT.601), uint8 [..., H*3/2, W] -> RGB, uint8 [..., H, W, 3]."""
    rows, width = frames.shape[-2:]
    if rows % 3 or width % 2:
        raise ValueError(f"frames are [..., H*3/2, W] with H and W even, got {list(frames.shape)}")
    height, lead = rows * 2 // 3, frames.shape[:-2]
    y = (frames[..., :height, :].astype(np.float32) - 16) * (255 / 219)
    chroma = frames[..., height:, :].reshape(*lead, 2, height // 2, width // 2).astype(np.float32) - 128
    u, v = np.moveaxis(chroma.repeat(2, -1).repeat(2, -2) * (255 / 224), -3, 0)
    colours = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1)
    return np.asarray(np.clip(np.rint(colours), 0, 255), np.uint8)


def strip(video: Image) -> Image:
    """Up to ``STRIP_FRAMES`` frames of a clip side by side.

    Args:
        video: uint8 [T, K, H*3/2, W].

    Returns:
        RGB, uint8 [side, frames * side, 3].
    """
    frames = video.reshape(-1, *video.shape[2:])
    small = _shrink(rgb(frames[in_strip(len(frames))]), STRIP_SIDE)
    return np.ascontiguousarray(np.concatenate(list(small), 1))


def in_strip(frames: int) -> NDArray[np.int64]:
    """The indices of a clip's frames in its strip."""
    return np.unique(np.linspace(0, frames - 1, min(frames, STRIP_FRAMES)).round().astype(np.int64))


def glow(heat: NDArray[np.float64], strength: float) -> Image:
    """Heat to lay over a picture: cold places are darkened, hot ones shine orange over any colour.

    Args:
        heat: [H, W], not negative.
        strength: 0 to 1, of the hottest place.

    Returns:
        RGB and opacity, uint8 [H, W, 4].
    """
    level = strength * heat / max(float(heat.max()), 1e-12)
    cold, hot = np.clip(1 - level / LUKEWARM, 0, 1), np.clip((level - LUKEWARM) / (1 - LUKEWARM), 0, 1)
    colour = np.where(hot[..., None] > 0, np.array(HEAT), 0)
    opacity = 255 * (DARKEST * cold + BRIGHTEST * hot)
    return np.asarray(np.rint(np.concatenate([colour, opacity[..., None]], -1)), np.uint8)


def _shrink(images: Image, side: int) -> Image:
    """Averages over boxes until neither side is longer than ``side``: [N, H, W, 3] -> [N, h, w, 3]."""
    small: NDArray[Any] = images.astype(np.float32)
    for axis in (1, 2):
        length = small.shape[axis]
        if length > side:
            edges = np.linspace(0, length, side + 1).round().astype(int)
            sizes = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(4)])
            small = np.add.reduceat(small, edges[:-1], axis) / sizes
    return np.asarray(np.rint(small), np.uint8)


def spectrogram(audio: NDArray[np.float32], silence: float, loud: float) -> Image:
    """The sound of a clip, low bands at the bottom.

    Args:
        audio: standardised pooled log-mel, [T, A, M].
        silence, loud: values drawn darkest and brightest.

    Returns:
        RGB, uint8 [M, T*A or fewer, 3].
    """
    columns = audio.reshape(-1, audio.shape[-1])
    step = -(-len(columns) // SPECTROGRAM_COLUMNS)
    level = np.clip((columns[::step].T[::-1] - silence) / max(loud - silence, 1e-6), 0, 1)
    position = np.linspace(0, 1, len(_ANCHORS))
    channels = [np.interp(level, position, [anchor[c] for anchor in _ANCHORS]) for c in range(3)]
    return np.asarray(np.rint(np.stack(channels, -1)), np.uint8)
