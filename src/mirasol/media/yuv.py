"""Crop, mirror and shrink planar YUV 4:2:0 frames, all frames of a clip alike. In integers: the same on any machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
ASPECT = math.log(4 / 3)  # a crop is at most a third wider than high, or higher than wide


@dataclass(frozen=True)
class Box:
    """Part of a picture in pixels of Y; all even, so that it has whole pixels of U and V."""

    top: int
    left: int
    height: int
    width: int


def draw_box(size: int, smallest: float, chances: NDArray[np.float64]) -> Box:
    """A box within ``size`` x ``size`` of at least the share ``smallest`` of its area.

    Four numbers of [0, 1) decide area, aspect and place. A large box is nearly square, so that it fits. Sides are
    rounded.
    """
    area = smallest + (1.0 - smallest) * chances[0]
    aspect = math.exp(min(ASPECT, -math.log(area)) * (2.0 * chances[1] - 1.0))
    height, width = (_even(size * math.sqrt(area * a), size) for a in (1.0 / aspect, aspect))
    top, left = (2 * int((size - side + 2) // 2 * c) for side, c in ((height, chances[2]), (width, chances[3])))
    return Box(top, left, height, width)


def zoomed(frames: Frames, box: Box) -> Frames:
    """Frames [..., S*3/2, S] with ``box`` enlarged to the whole picture (bilinear).

    Raises:
        ValueError: a side of the box is odd or empty, or the box is not within the frame.
    """
    size = frames.shape[-1]
    sides = (box.top, box.left, box.height, box.width)
    inside = box.top + box.height <= size and box.left + box.width <= size
    if any(n % 2 for n in sides) or min(sides) < 0 or not (box.height and box.width and inside):
        raise ValueError(f"{box} in a picture of {size} x {size}: expected even numbers and a box within")
    half = Box(*(n // 2 for n in sides))
    return _join([_zoom(p, box if i == 0 else half) for i, p in enumerate(_planes(frames))], frames.shape)


def mirrored(frames: Frames) -> Frames:
    """Frames [..., S*3/2, S] with left and right exchanged."""
    return _join([plane[..., ::-1] for plane in _planes(frames)], frames.shape)


def shrunk(frames: Frames, size: int) -> Frames:
    """Frames [..., S*3/2, S] as [..., size*3/2, size], each pixel the rounded mean of a square (half up).

    Raises:
        ValueError: ``size`` is odd, or does not divide S.
    """
    whole = frames.shape[-1]
    if size < 2 or size % 2 or whole % size:
        raise ValueError(f"{size} of {whole} pixels: expected {whole} divided by a whole number, and even")
    side = whole // size
    if side == 1:
        return frames
    return _join([_pooled(plane, side) for plane in _planes(frames)], (*frames.shape[:-2], size * 3 // 2, size))


def _pooled(plane: Frames, side: int) -> Frames:
    """Rows first, then columns: whole rows are added fast."""
    kind = np.uint16 if side <= 16 else np.uint32  # 255 * 16 * 16 fits 16 bits
    rows = plane.reshape(len(plane), plane.shape[1] // side, side, plane.shape[2])
    lines: Any = rows[:, :, 0].astype(kind)
    for i in range(1, side):
        lines += rows[:, :, i]
    sums: Any = lines[..., ::side] + kind(side * side // 2)
    for i in range(1, side):
        sums += lines[..., i::side]
    means: Frames = (sums // kind(side * side)).astype(np.uint8)
    return means


def _even(side: float, size: int) -> int:
    return min(size, max(2, 2 * round(side / 2)))


def _planes(frames: Frames) -> list[Frames]:
    """Y [N, S, S], U and V [N, S/2, S/2]: in memory U and V follow Y without regard to rows."""
    size = frames.shape[-1]
    flat = frames.reshape(-1, size * size * 3 // 2)
    cuts = (0, size * size, size * size * 5 // 4, size * size * 3 // 2)
    sides = (size, size // 2, size // 2)
    return [flat[:, a:b].reshape(-1, s, s) for a, b, s in zip(cuts, cuts[1:], sides, strict=False)]


def _join(planes: list[Frames], shape: tuple[int, ...]) -> Frames:
    return np.concatenate([plane.reshape(len(plane), -1) for plane in planes], axis=1).reshape(shape)


def _zoom(plane: Frames, box: Box) -> Frames:
    size = plane.shape[-1]
    part = plane[:, box.top : box.top + box.height, box.left : box.left + box.width]
    low, high, weight = _taps(box.height, size)
    part = blend(part[:, low], part[:, high], weight[:, None])
    low, high, weight = _taps(box.width, size)
    return blend(part[:, :, low], part[:, :, high], weight)


def _taps(side: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16]]:
    """For each of ``size`` pixels the two neighbours among ``side``, and the weight of the second, of 256."""
    place = np.clip((np.arange(size) + 0.5) * (side / size) - 0.5, 0, side - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, side - 1), np.round((place - low) * 256).astype(np.uint16)


def blend(first: Frames, second: Frames, weight: NDArray[np.uint16] | int) -> Frames:
    """``second`` with ``weight`` of 256, ``first`` with the rest."""
    part = np.asarray(weight, np.uint16)
    mixed = first.astype(np.uint16) * (256 - part) + second.astype(np.uint16) * part + 128
    return (mixed >> 8).astype(np.uint8)
