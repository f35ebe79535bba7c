"""A bundle of a tiny model, exported once per combiner for all tests that only read it."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from support.model import tiny_model

from mirasol.export.bundle import export_bundle
from mirasol.export.config import ExportSpec
from mirasol.media.clip import ClipSpec
from mirasol.model.mirasol import Mirasol
from mirasol.runtime.contract import Contract
from mirasol.runtime.engine import Engine
from mirasol.tokenizer import FORMAT, SPACE, SPECIAL

CLIP = ClipSpec(fps=8.0, chunks=4, frames_per_chunk=4, size=16, sample_rate=8000, mels=8, audio_bands=2)
WORDS = ("which", "sound", "colour", "is", "it", "red", "blue", "bell", "buzz", "first")
QUESTION = "which sound is it"
MAX_TEXT, MAX_ANSWER, MAX_CHUNKS = 12, 4, 5


def write_tokenizer(path: Path) -> Path:
    """A vocabulary of whole words."""
    pieces = [(piece, 0.0) for piece in SPECIAL] + [(SPACE + word, -3.0) for word in WORDS]
    path.write_text(json.dumps({"format": FORMAT, "max_text": MAX_TEXT, "pieces": pieces}))
    return path


def bundle_model(combiner: str = "transformer", seed: int = 0, latent: str = "causal") -> Mirasol:
    """The model in the bundle of :func:`tiny_bundle`."""
    sizes = {"vocabulary": len(SPECIAL) + len(WORDS), "max_text": MAX_TEXT, "max_chunks": MAX_CHUNKS}
    return tiny_model(seed, combiner=combiner, latent=latent, **sizes)


def export_tiny(folder: Path, combiner: str = "transformer", latent: str = "causal") -> Path:
    """Export :func:`bundle_model` to ``folder/bundle``."""
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    model, out = bundle_model(combiner, latent=latent), folder / "bundle"
    export_bundle(model, CLIP, tokenizer, out, ExportSpec(), max_answer=MAX_ANSWER, project=folder)
    return out


def ended_by(engine: Engine, word: str) -> Contract:
    """The engine's contract with ``word`` for the end mark: the tiny model never says the true one."""
    tokenizer = dataclasses.replace(engine.contract.tokenizer, eos=len(SPECIAL) + WORDS.index(word))
    return dataclasses.replace(engine.contract, tokenizer=tokenizer)


def tiny_bundle(combiner: str = "transformer", latent: str = "causal") -> Path:
    """The folder of a bundle that must not be changed."""
    return _exported(combiner, latent)


@functools.cache
def _exported(combiner: str, latent: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mirasol-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return export_tiny(folder, combiner, latent)


def random_chunk(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames [K, H*3/2, W] and samples [S] of one chunk."""
    random = np.random.default_rng(seed)
    video = random.integers(16, 236, (CLIP.frames_per_chunk, CLIP.size * 3 // 2, CLIP.size), dtype=np.uint8)
    return video, random.normal(0, 0.1, round(CLIP.chunk_seconds * CLIP.sample_rate)).astype(np.float32)
