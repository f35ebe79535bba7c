"""A made set: an object that moves, or rests, filmed by a shaking camera with noise.

The same picture in both classes but for the motion: no colour, place or texture tells them apart.
"""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SIDE, FPS, SECONDS = 96, 16, 2.0
WORLD = 144  # pixels of the scene, of which the camera sees SIDE
SHAKE = 10  # pixels that the camera wanders from its middle, at most
NOISE = 30.0  # standard deviation of the sensor, of 255
QUESTION, ANSWERS = "Does the object move?", ("yes", "no")


def frames_of(number: int, *, moves: bool) -> NDArray[np.uint8]:
    """The grey frames [N, SIDE, SIDE] of clip ``number``."""
    draw = np.random.default_rng((20261, number))
    count = int(FPS * SECONDS)
    coarse = draw.uniform(60, 190, (WORLD // 12, WORLD // 12))
    scene = np.kron(coarse, np.ones((12, 12)))
    side, shade = int(draw.integers(14, 24)), float(draw.uniform(60, 190))
    centre = draw.uniform(WORLD / 2 - 22, WORLD / 2 + 22, 2)
    angle, travel = draw.uniform(0, 2 * np.pi), draw.uniform(8, 18)
    step = travel * np.array([np.sin(angle), np.cos(angle)]) / (count - 1) if moves else np.zeros(2)
    camera = np.cumsum(draw.normal(0, 2.4, (count, 2)), 0)
    camera = np.clip(camera - camera.mean(0), -SHAKE, SHAKE) + (WORLD - SIDE) / 2
    frames = np.empty((count, SIDE, SIDE), np.uint8)
    for index in range(count):
        picture = scene.copy()
        top, left = np.round(centre + step * (index - count / 2) - side / 2).astype(int)
        picture[top : top + side, left : left + side] = shade
        y, x = np.round(camera[index]).astype(int)
        seen = picture[y : y + SIDE, x : x + SIDE] + draw.normal(0, NOISE, (SIDE, SIDE))
        frames[index] = np.clip(seen, 0, 255).astype(np.uint8)
    return frames


def make_shaken(folder: Path, clips: int = 200) -> Path:
    """Write ``clips`` silent mp4 files with annotations.csv into ``folder``, half of them of each answer."""
    rows = []
    for number in range(clips):
        name, moves = f"clip-{number:03d}.mp4", number % 2 == 0
        _write(folder / name, frames_of(number, moves=moves))
        rows.append({"media": name, "prompt": QUESTION, "answers": ANSWERS[0] if moves else ANSWERS[1]})
    return _annotate(folder, rows)


def make_few(folder: Path, counts: dict[str, int], unlabelled: int) -> Path:
    """As :func:`make_shaken`, with so many clips of each split; ``unlabelled`` more lie in the folder of that name."""
    rows = []
    for split, count in counts.items():
        for _ in range(count):
            number = len(rows)
            name, moves = f"clip-{number:03d}.mp4", number % 2 == 0
            _write(folder / name, frames_of(number, moves=moves))
            answer = ANSWERS[0] if moves else ANSWERS[1]
            rows.append({"media": name, "prompt": QUESTION, "answers": answer, "split": split})
    for number in range(len(rows), len(rows) + unlabelled):
        _write(folder / "unlabelled" / f"clip-{number:03d}.mp4", frames_of(number, moves=number % 2 == 0))
    return _annotate(folder, rows)


def _annotate(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _write(path: Path, frames: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())
