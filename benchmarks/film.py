"""Made-up film for benchmarks: textures that move over each other, with the spectrum of photographs and with grain."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 1280, 720, 25
SLOPE = (
    1.5  # amplitude over spatial frequency falls with this power: photographs have 1, lenses and cameras soften them
)
GRAIN = 2.0  # standard deviation of the grain, of 255
SAMPLE_RATE, BLOCK = 44100, 1024  # of the sound


def texture(draws: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A field [height, width] of mean 0 and deviation 1 that repeats at its edges."""
    waves = np.fft.rfft2(draws.normal(size=(height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(waves / frequency**SLOPE, (height, width))
    return (field / field.std()).astype(np.float32)


def film(seed: int, frames: int) -> Iterator[NDArray[np.uint8]]:
    """Planar 4:2:0 pictures [HEIGHT*3/2, WIDTH]: a scene that a camera pans over, and four things that cross it."""
    draws = np.random.default_rng(seed)
    scene = 120 + 40 * texture(draws, 1024, 2048)
    colours = [128 + 12 * texture(draws, 512, 1024) for _ in range(2)]
    things = [
        (draws.uniform(70, 170) + 35 * texture(draws, 256, 256), draws.uniform(0, 400, 2), draws.uniform(-3, 3, 2))
        for _ in range(4)
    ]
    grain = [draws.normal(0, GRAIN, (HEIGHT, WIDTH)).astype(np.float32) for _ in range(8)]
    for time in range(frames):
        down, right = time // 2 % 300, 3 * time // 2 % 760
        luma = scene[down : down + HEIGHT, right : right + WIDTH].copy()
        for thing, place, speed in things:
            y, x = (np.abs(place + speed * time).astype(int) % (HEIGHT - 256, WIDTH - 256)).tolist()
            luma[y : y + 256, x : x + 256] = thing
        luma += np.roll(grain[time % 8], int(draws.integers(WIDTH * HEIGHT)))
        planes = [luma, *(c[down // 2 :, right // 2 :][: HEIGHT // 2, : WIDTH // 2] for c in colours)]
        flat = np.concatenate([np.clip(plane, 16, 235).astype(np.uint8).reshape(-1) for plane in planes])
        yield flat.reshape(HEIGHT * 3 // 2, WIDTH)


def sound(seed: int, samples: int) -> NDArray[np.float32]:
    """A tone that glides, and noise, [samples]."""
    time = np.arange(samples) / SAMPLE_RATE
    glide = np.sin(2 * np.pi * (220 + 30 * np.sin(2 * time)) * time)
    return (0.2 * glide + np.random.default_rng(seed).normal(0, 0.05, samples)).astype(np.float32)


def write_film(path: Path, seed: int, frames: int) -> None:
    """A file as cameras and sites make them: H.264 of 720 lines with B-frames and few key frames, stereo AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "medium", "crf": "23"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        for picture in film(seed, frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(video.encode(None))
        samples = np.stack([sound(seed, SAMPLE_RATE * frames // RATE)] * 2)
        for low in range(0, samples.shape[1], BLOCK):
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, low : low + BLOCK]), format="fltp", layout="stereo"
            )
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, low, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
