"""Small media files of known content: frame i is grey of a known brightness, sound a known wave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mirasol.data.manifest import Example, write_manifest
from mirasol.media.clip import ClipSpec

# A clip of 0.5 s in two chunks of two frames: the smallest that has every part.
TINY_CLIP = ClipSpec(fps=8.0, chunks=2, frames_per_chunk=2, size=16, sample_rate=8000, mels=8, audio_bands=4)
SHARED = Path(os.environ.get("MIRASOL_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"


def grey(index: int) -> int:
    """Brightness of frame ``index``: far enough apart to survive compression."""
    return 20 + 12 * (index % 16)


def shown(frames: np.ndarray) -> list[int]:
    """Frame numbers of planar frames [N, H*3/2, W], read back from their brightness."""
    height = frames.shape[1] * 2 // 3
    return [round((float(f[:height].mean()) - 20) / 12) for f in frames]


def tone(seconds: float, rate: int = 8000, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """A sine [S] of ``level`` of full scale."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_media(
    path: Path,
    *,
    frames: int = 0,
    fps: Fraction | int = 8,
    size: tuple[int, int] = (32, 32),
    times: Sequence[float] | None = None,
    gop: int = 2,
    pixels: str = "yuv420p",
    sound: np.ndarray | None = None,
    rate: int = 8000,
    sound_from: float = 0.0,
    codec: str = "flac",
) -> Path:
    """Write grey ``frames``, at ``times`` if given, and ``sound``, mono [S] or [channels, S], from ``sound_from``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames:
            options = {"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:open-gop=0", "qp": "10"}
            video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"} | options)
            video.width, video.height = size
            video.pix_fmt = pixels
            video.codec_context.thread_count = 1
            if times is not None:
                video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            sound = np.atleast_2d(sound)
            layout = {1: "mono", 2: "stereo"}[len(sound)]
            audio = container.add_stream(codec, rate=rate, layout=layout, format="s16")
        for index in range(frames):
            planes = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
            planes[: size[1]] = grey(index)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p").reformat(format=pixels)
            picture.pts = index if times is None else round(1000 * times[index])
            picture.time_base = 1 / Fraction(fps) if times is None else Fraction(1, 1000)
            container.mux(video.encode(picture))
        if video is not None:
            container.mux(video.encode(None))
        if audio is not None:
            samples = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)
            packed = np.ascontiguousarray(samples.T.reshape(1, -1))
            block = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            block.sample_rate, block.time_base = rate, Fraction(1, rate)
            block.pts = round(sound_from * rate)
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def example(number: int = 0, **changes: object) -> Example:
    """A row of a manifest; its split follows from its number: two of train, one of val, one of test, again."""
    values = {
        "id": f"e{number}",
        "media": f"media/{number}.mp4",
        "start": None,
        "end": None,
        "task": "qa",
        "prompt": "What is it?",
        "answers": (f"thing {number % 3}",),
        "split": ("train", "train", "val", "test")[number % 4],
        "group": f"g{number}",
        "family": "kind",
        "licence": "CC0-1.0",
    }
    return Example(**(values | changes))


def write_data(folder: Path, clips: int = 8, questions: int = 3) -> Path:
    """A data folder of ``clips`` clips that conform to TINY_CLIP; of each four one has no sound, another no picture."""
    rows = []
    for number in range(clips):
        sound = None if number % 4 == 1 else tone(0.5, hertz=200 + 100 * number)
        frames = 0 if number % 8 == 4 else 4
        suffix = "mp4" if frames else "flac"
        path = write_media(folder / "media" / f"{number}.{suffix}", frames=frames, size=(16, 16), sound=sound)
        media = f"media/{path.name}"
        rows.append(example(number, id=f"c{number}", media=media, task="caption", prompt="Describe the clip."))
        rows += [
            example(number, id=f"q{number}-{q}", media=media, prompt=f"Question {q}?", answers=(f"answer {q}",))
            for q in range(questions)
        ]
    write_manifest(folder / "manifest.jsonl", rows)
    return folder
