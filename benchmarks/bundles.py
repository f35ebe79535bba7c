"""The inputs of the streaming benchmarks: a bundle of a demo model, trained or with random weights, and a film."""

from __future__ import annotations

import contextlib
import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from mirasol.export.bundle import TrainedModel, export_bundle
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.config import POOLED_COMBINERS, ModelConfig, ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.tokenizer import FORMAT, SPACE, SPECIAL

CLIP = ClipSpec(fps=8.0, chunks=4, frames_per_chunk=4, size=48, sample_rate=16000, mels=32, audio_bands=4)
QUESTION = "which sound is it"
WORDS = (*QUESTION.split(), "red", "blue", "first")
MAX_TEXT, MAX_ANSWER = 32, 8


def demo_config(combiner: str) -> ModelConfig:
    """The demo preset, cut as in params.yaml, with the vocabulary of :func:`random_bundle`."""
    queries = "pooled" if combiner in POOLED_COMBINERS else "last"
    spec = ModelSpec(preset="demo", combiner=combiner, queries=queries)
    return build_config(
        spec,
        size=CLIP.size,
        frames_per_chunk=CLIP.frames_per_chunk,
        mels=CLIP.mels,
        audio_columns=CLIP.audio_columns,
        vocabulary=len(SPECIAL) + len(WORDS),
        max_text=MAX_TEXT,
    )


def random_model(combiner: str) -> Mirasol:
    """A demo model with random weights, in eval mode."""
    torch.manual_seed(0)
    return Mirasol(demo_config(combiner)).eval()


def random_bundle(folder: Path, model: Mirasol) -> Path:
    """The bundle of :func:`random_model`, written to ``folder``."""
    pieces = [(piece, 0.0) for piece in SPECIAL] + [(SPACE + word, -3.0) for word in WORDS]
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(json.dumps({"format": FORMAT, "max_text": MAX_TEXT, "pieces": pieces}), encoding="utf-8")
    out = folder / f"bundle-{model.config.combiner}"
    with contextlib.redirect_stdout(io.StringIO()):
        export_bundle(TrainedModel(model, CLIP, tokenizer, MAX_ANSWER), out, ExportSpec(), project=folder)
    return out


def write_film(path: Path, seconds: float, *, width: int = 640, height: int = 360, fps: int = 25) -> Path:
    """Texture that moves, and a tone in noise: H.264 and stereo AAC of 44.1 kHz, as a camera or a site gives it."""
    rate, draws = 44100, np.random.default_rng(0)
    coarse = draws.integers(16, 236, (height // 8 + 200, width // 8 + 200)).astype(np.uint8)
    texture = np.kron(coarse, np.ones((8, 8), np.uint8))
    times = np.arange(round(rate * seconds)) / rate
    sound = (0.3 * np.sin(2 * np.pi * 440 * times) + 0.05 * draws.normal(size=len(times))).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="stereo")
        for number in range(round(seconds * fps)):
            picture = np.full((height * 3 // 2, width), 128, np.uint8)
            x, y = (3 * number) % 1500, (2 * number) % 1500
            picture[:height] = texture[y : y + height, x : x + width]
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
            low, high = round(number * rate / fps), round((number + 1) * rate / fps)
            block = av.AudioFrame.from_ndarray(np.stack([sound[low:high]] * 2), format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = rate, low, Fraction(1, rate)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path
