"""Simple numbers about a decoded clip: colour, motion without the camera's shaking, level and bands of the sound.

What a linear model can tell from them, a trained model has to beat. numpy only; equal clips give equal numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirasol.data.loading.decoded_cache import Decoded

Floats = NDArray[np.float64]

SIDE = 64  # pictures are averaged down to at most about so many pixels
CELLS = 4  # rows and columns of the grid that locates motion
BANDS = 16  # of the sound, neighbouring mels averaged
SPECTRUM = 3  # parts of a temporal spectrum
QUANTILES = (0.5, 0.9, 0.99)
PICTURE, SOUND = 45, 53  # how many numbers describe each


def features_of(clip: Decoded) -> Floats:
    """The numbers of one clip, float64 [PICTURE + SOUND]; those of an absent picture or sound are NaN."""
    picture = np.full(PICTURE, np.nan)
    if clip.video is not None and clip.video_present.any():
        picture = picture_features(clip.video[clip.video_present])
    sound = np.full(SOUND, np.nan)
    if clip.audio is not None and clip.audio_present.any():
        sound = sound_features(clip.audio[clip.audio_present])
    return np.concatenate([picture, sound])


def picture_features(video: NDArray[np.uint8]) -> Floats:
    """Colour and motion of planar YUV 4:2:0 frames [T, K, size*3/2, size]: float64 [PICTURE]."""
    size = video.shape[-1]
    flat = video.reshape(-1, video.shape[-2] * size)
    luma = _shrunk(flat[:, : size * size].reshape(-1, size, size))
    quarter = size * size // 4
    chroma = [flat[:, size * size + n * quarter :][:, :quarter] / 255.0 for n in (0, 1)]
    planes = [luma.reshape(len(luma), -1), *chroma]
    half = luma.shape[1] // 2
    corners = [luma[:, y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
    colour = [f for plane in planes for f in (plane.mean(), plane.std(1).mean(), plane.mean(1).std())]
    return np.array([*colour, *corners, *_motion(luma)])


def _shrunk(frames: NDArray[np.uint8]) -> Floats:
    """[N, s, s] as 0 to 1, averaged over blocks to about ``SIDE`` pixels."""
    block = max(1, frames.shape[1] // SIDE)
    side = frames.shape[1] // block
    cut = frames[:, : side * block, : side * block].reshape(len(frames), side, block, side, block)
    found: Floats = cut.mean((2, 4)) / 255.0
    return found


def _motion(luma: Floats) -> list[float]:
    """Statistics of absolute differences of frames, next to each other and half a clip apart: 32 numbers."""
    if len(luma) < 2:
        return [0.0] * 32
    margin = max(1, luma.shape[1] // 8)  # the largest shift that is taken out, and the border that it spoils
    shifts, differences = _steady(luma[:-1], luma[1:], margin)
    plain = np.abs(luma[1:] - luma[:-1]).mean((1, 2))
    _, far = _steady(luma[: -(len(luma) // 2)], luma[len(luma) // 2 :], margin)
    by_pair = differences.mean((1, 2))
    side = differences.shape[1] // CELLS
    grid = differences.mean(0)[: side * CELLS, : side * CELLS].reshape(CELLS, side, CELLS, side).mean((1, 3))
    grid_far = far.mean(0)[: side * CELLS, : side * CELLS].reshape(CELLS, side, CELLS, side).mean((1, 3))
    amounts = [
        *(value for part in (differences, far) for value in _amounts(part)),  # 12
        by_pair.std(), by_pair.max(), plain.mean(), plain.std(),  # 4
        differences.std(), far.std(),  # 2
    ]  # fmt: skip
    moved = np.abs(shifts).mean(0), shifts.std(0)
    places = [f for cells in (grid, grid_far) for f in (cells.max() / (cells.mean() + 1e-6), cells.std() * 100)]
    return [
        *(float(np.log(value + 1e-4)) for value in amounts),
        *(float(value) for pair in moved for value in pair),  # 4
        *map(float, places),  # 4
        *_spectrum(by_pair),  # 4
        *_spectrum(plain)[1:2],
        float(np.hypot(*shifts.T).max()),
    ]


def _amounts(differences: Floats) -> list[float]:
    """Mean, quantiles over pixels, largest, and the deviation of the largest over time."""
    flat = differences.reshape(len(differences), -1)
    tops = flat.max(1)
    quantiles = np.quantile(flat, QUANTILES, axis=1).mean(1)
    return [float(flat.mean()), *map(float, quantiles), float(tops.mean()), float(tops.std())]


def _steady(before: Floats, after: Floats, margin: int) -> tuple[Floats, Floats]:
    """The camera's whole-pixel shift [N, 2] by phase correlation, and the differences left without it, cropped."""
    side = before.shape[1]
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    spectra = [np.fft.rfft2((f - f.mean((1, 2), keepdims=True)) * window) for f in (before, after)]
    cross = np.conj(spectra[0]) * spectra[1]
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-9), s=(side, side))
    near = np.roll(surface, (margin, margin), (1, 2))[:, : 2 * margin + 1, : 2 * margin + 1]
    best = near.reshape(len(near), -1).argmax(1)
    shifts = np.stack(np.unravel_index(best, near.shape[1:]), 1) - margin
    inner = slice(margin, side - margin)
    left = [
        np.abs(np.roll(after[n], (-dy, -dx), (0, 1))[inner, inner] - before[n][inner, inner])
        for n, (dy, dx) in enumerate(shifts.tolist())
    ]
    return shifts.astype(np.float64), np.stack(left)


def _spectrum(series: Floats) -> list[float]:
    """Log of the power of a series over time, and the shares of its ``SPECTRUM`` parts from slow to fast."""
    power = np.abs(np.fft.rfft(series - series.mean()))[1:] ** 2
    if len(power) < SPECTRUM or power.sum() < 1e-12:
        return [float(np.log(power.sum() + 1e-9)), *[1 / SPECTRUM] * SPECTRUM]
    parts = [part.sum() / power.sum() for part in np.array_split(power, SPECTRUM)]
    return [float(np.log(power.sum() + 1e-9)), *map(float, parts)]


def sound_features(audio: NDArray[np.float32]) -> Floats:
    """Level, bands, onsets and course of log-mel [T, A, M]: float64 [SOUND]."""
    columns = audio.reshape(-1, audio.shape[-1]).astype(np.float64)
    bands = np.stack([(part if part.size else columns).mean(1) for part in np.array_split(columns, BANDS, axis=1)], 1)
    level = columns.mean(1)
    loud = level > (np.median(level) + level.max()) / 2
    onsets = int((loud[1:] & ~loud[:-1]).sum()) + int(loud[0])
    power = np.exp(columns - columns.max())
    height = (power * np.arange(columns.shape[1])).sum(1) / power.sum(1)
    course = [part.mean() for line in (level, height) for part in np.array_split(line, 3)]
    steps = np.abs(np.diff(level)).mean() if len(level) > 1 else 0.0
    return np.array([
        *bands.mean(0), *bands.std(0),
        level.mean(), level.std(), *np.quantile(level, (0.1, *QUANTILES[:2])), level.max(), steps,
        onsets, loud.mean(), height.std(),
        *np.nan_to_num(course), *_spectrum(level), np.argmax(level) / len(level),
    ])  # fmt: skip
