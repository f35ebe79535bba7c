"""Crop and mirror planar YUV 4:2:0: the colours stay where the brightness is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mirasol.media.yuv import Box, _join, _planes, draw_box, mirrored, zoomed

SIZES = (16, 18)  # of 18 a row of U ends in the middle of a row of the frame


def frames(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (2, 3, size * 3 // 2, size), np.uint8)


def from_planes(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = y.shape[-1]
    return _join([y[None], u[None], v[None]], (1, 1, size * 3 // 2, size))


def split(size: int, edge: int) -> NDArray[np.uint8]:
    """A frame, dark and bluish left of column ``edge``, bright and reddish from there on."""
    columns = np.arange(size)
    y = np.broadcast_to(np.where(columns < edge, 40, 200).astype(np.uint8), (size, size))
    half = np.arange(size // 2) * 2
    u = np.broadcast_to(np.where(half < edge, 160, 90).astype(np.uint8), (size // 2, size // 2))
    v = np.broadcast_to(np.where(half < edge, 90, 160).astype(np.uint8), (size // 2, size // 2))
    return from_planes(y, u, v)


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_picture_as_a_box_changes_nothing(size: int) -> None:
    assert np.array_equal(zoomed(frames(size), Box(0, 0, size, size)), frames(size))


@pytest.mark.parametrize("size", SIZES)
def test_a_plain_colour_stays_what_it_is(size: int) -> None:
    half = np.full((size // 2, size // 2), 90, np.uint8)
    plain = from_planes(np.full((size, size), 235, np.uint8), half, half + 70)
    assert np.array_equal(zoomed(plain, Box(2, 4, 6, 10)), plain)


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_keeps_brightness_and_colour_together(size: int) -> None:
    """A crop that begins at an edge shows one side of it only, in all three planes."""
    y, u, v = _planes(zoomed(split(size, 8), Box(4, 8, size - 8, size - 8)))
    assert (y == 200).all() and (u == 90).all() and (v == 160).all()


def test_all_frames_of_a_clip_are_cropped_alike() -> None:
    one = frames(16)[:, :1]
    still = np.broadcast_to(one, (2, 3, *one.shape[2:]))
    found = zoomed(still, Box(2, 2, 10, 12))
    assert np.array_equal(found, np.broadcast_to(found[:, :1], found.shape))


def test_a_crop_enlarges_as_a_bilinear_filter_does() -> None:
    """A ramp along the rows stays a ramp, half as steep, about the same middle."""
    ramp = np.broadcast_to((np.arange(16) * 10 + 20).astype(np.uint8)[:, None], (16, 16))
    grey = np.full((8, 8), 128, np.uint8)
    y = _planes(zoomed(from_planes(ramp, grey, grey), Box(4, 0, 8, 16)))[0][0]
    wanted = 20 + 10 * (4 + (np.arange(16) + 0.5) / 2 - 0.5)
    assert np.abs(y[1:-1, 0] - wanted[1:-1]).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_mirrored_twice_is_as_before_and_once_is_not(size: int) -> None:
    once = mirrored(frames(size))
    assert np.array_equal(mirrored(once), frames(size)) and not np.array_equal(once, frames(size))


@pytest.mark.parametrize("size", SIZES)
def test_mirroring_moves_colour_with_brightness(size: int) -> None:
    y, u, v = _planes(mirrored(split(size, 8)))
    assert (y[:, :, size - 8 :] == 40).all() and (u[:, :, size // 2 - 4 :] == 160).all()
    assert (y[:, :, : size - 8] == 200).all() and (v[:, :, : size // 2 - 4] == 160).all()


@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.97])
def test_boxes_are_even_within_the_picture_and_large_enough(smallest: float) -> None:
    chances = np.random.default_rng(1).random((500, 4))
    for row in [*chances, np.zeros(4), np.full(4, 1 - 1e-12)]:
        box = draw_box(48, smallest, row)
        assert not any(n % 2 for n in (box.top, box.left, box.height, box.width))
        assert min(box.top, box.left) >= 0 and max(box.top + box.height, box.left + box.width) <= 48
        assert (box.height + 1) * (box.width + 1) >= smallest * 48 * 48  # a side is rounded by at most 1
        assert 0.6 < box.width / box.height < 1.6


def test_boxes_reach_every_side() -> None:
    boxes = [draw_box(16, 0.25, row) for row in np.random.default_rng(2).random((300, 4))]
    assert min(b.top for b in boxes) == min(b.left for b in boxes) == 0
    assert max(b.top + b.height for b in boxes) == max(b.left + b.width for b in boxes) == 16


@pytest.mark.parametrize("box", [Box(1, 0, 8, 8), Box(0, 0, 7, 8), Box(10, 0, 8, 8), Box(-2, 0, 8, 8), Box(0, 0, 0, 8)])
def test_a_box_that_fits_no_plane_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="expected even numbers and a box within"):
        zoomed(frames(16), box)
