from __future__ import annotations

import io

import av
import numpy as np
import pytest

from mirasol.evaluation.pictures import STRIP_FRAMES, STRIP_SIDE, png, rgb, spectrogram, strip


def read_png(data: bytes, form: str = "rgb24") -> np.ndarray:
    """Decoded by FFmpeg: another reader than the writer under test."""
    with av.open(io.BytesIO(data), format="png_pipe") as container:
        return next(container.decode(video=0)).to_ndarray(format=form)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (48, 768)])
def test_png_keeps_every_pixel(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(read_png(png(image)), image)


def test_png_keeps_opacity() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    assert np.array_equal(read_png(png(image), "rgba"), image)


def test_png_of_a_smooth_image_is_small() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (64, 256, 3))
    assert len(png(np.ascontiguousarray(ramp))) < 2000


def test_png_refuses_what_is_no_rgb_image() -> None:
    with pytest.raises(ValueError, match=r"float64 \[2, 2, 3\]"):
        png(np.zeros((2, 2, 3)))


@pytest.mark.parametrize(
    ("yuv", "expected"),
    [((16, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)), ((81, 90, 240), (254, 0, 0))],
)
def test_rgb_of_known_colours(yuv: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    frame = np.empty((6, 4), np.uint8)
    frame[:4], frame[4:5], frame[5:] = yuv
    assert np.abs(rgb(frame).astype(int) - expected).max() <= 1


def test_rgb_agrees_with_ffmpeg() -> None:
    rows = np.linspace(40, 200, 24 * 16).reshape(24, 16).astype(np.uint8)
    reference = av.VideoFrame.from_ndarray(rows, format="yuv420p").to_ndarray(format="rgb24").astype(int)
    assert np.abs(rgb(rows).astype(int)[4:-4, 4:-4] - reference[4:-4, 4:-4]).mean() < 6


def test_rgb_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[7, 4\]"):
        rgb(np.zeros((7, 4), np.uint8))


def test_a_strip_holds_few_small_frames() -> None:
    video = np.zeros((16, 8, 150, 100), np.uint8)
    assert strip(video).shape == (STRIP_SIDE, STRIP_SIDE * STRIP_FRAMES, 3)


def test_a_strip_of_a_short_clip_holds_all_frames() -> None:
    assert strip(np.zeros((1, 3, 24, 16), np.uint8)).shape == (16, 48, 3)


def test_a_spectrogram_has_low_tones_at_the_bottom_and_time_to_the_right() -> None:
    audio = np.full((2, 4, 8), -1, np.float32)
    audio[1, 3, 0] = 3  # the last column, the lowest band
    image = spectrogram(audio, -1, 3)
    assert image.shape == (8, 8, 3)
    assert np.argwhere(image.sum(2) == image.sum(2).max()).tolist() == [[7, 7]]
