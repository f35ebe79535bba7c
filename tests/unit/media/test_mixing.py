"""Sound of any channels becomes one: also where FFmpeg knows no way from their layout to mono."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from support.media import TINY_CLIP

from mirasol.media.decode import decode_clip
from mirasol.media.probe import probe_file
from mirasol.runtime.sources.files import FileSource

CLIP = TINY_CLIP
PCM, FLOAT = 1, 3


def wav(path: Path, samples: np.ndarray, mask: int, rate: int = 16000) -> Path:
    """A WAVE file with the speaker mask ``mask`` of ``samples`` [n, channels]."""
    channels, width = samples.shape[1], samples.dtype.itemsize
    kind = FLOAT if samples.dtype.kind == "f" else PCM
    guid = struct.pack("<I", kind) + bytes.fromhex("00001000800000aa00389b71")
    form = struct.pack("<HHIIHH", 0xFFFE, channels, rate, rate * channels * width, channels * width, 8 * width)
    form += struct.pack("<HHI", 22, 8 * width, mask) + guid
    data = samples.tobytes()
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


@pytest.mark.parametrize(
    ("kind", "full", "zero"), [("<i2", 32767, 0), ("<i4", 2**31 - 1, 0), ("<f4", 1.0, 0), ("u1", 127, 128)]
)
def test_sound_of_an_unknown_layout_is_the_mean_of_its_channels(
    tmp_path: Path, kind: str, full: float, zero: float
) -> None:
    seconds = CLIP.chunk_seconds * CLIP.chunks
    tone = np.sin(2 * np.pi * 220 * np.arange(round(16000 * seconds)) / 16000)
    channels = np.stack([tone] * 3 + [0 * tone] * 6, axis=1)  # a third of nine
    path = wav(tmp_path / "nine.wav", (0.9 * full * channels + zero).round(6).astype(kind), mask=0)
    assert probe_file(path).kind == "ok"
    wave = np.concatenate([chunk.samples for chunk in FileSource(path, CLIP)])
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    assert np.abs(middle).max() == pytest.approx(0.3, abs=0.02)


def test_a_pair_of_back_speakers_is_heard(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, (32000, 2)).astype("<i2")
    path = wav(tmp_path / "back.wav", noise, mask=0x30)
    assert decode_clip(path, None, None, CLIP).audio_chunks == CLIP.chunks
