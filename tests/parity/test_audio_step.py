"""The audio front end as a graph gives the features of the loader."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest

from mirasol.export.audio import AudioStep
from mirasol.export.onnx import to_onnx
from mirasol.export.signature import audio_graph
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE, chunk_edge, clip_audio
from mirasol.runtime.engine import relative

CHUNKS = 7
CLIPS = {
    "whole chunks": ClipSpec(sample_rate=8000, mels=8, audio_bands=2),
    "one sample more or less": ClipSpec(sample_rate=16000, mels=32, fps=7.0),  # 9142.86 samples a chunk
    "narrow bands": ClipSpec(sample_rate=16000, mels=128, fps=25.0, frames_per_chunk=8),
    "relative level": ClipSpec(sample_rate=8000, mels=16, level="relative"),
}


def streamed(samples: np.ndarray, clip: ClipSpec) -> np.ndarray:
    """Features [T, A, M] by the exported graph, chunk by chunk."""
    graph = audio_graph(clip)
    session = onnxruntime.InferenceSession(to_onnx(graph, 18), providers=["CPUExecutionProvider"])
    past, parts = np.zeros((1, graph.spec.input("past").shape[1]), np.float32), []
    edges = [chunk_edge(t, clip.chunk_seconds, clip.sample_rate) for t in range(CHUNKS + 1)]
    for low, high in itertools.pairwise(edges):
        chunk = np.full(graph.spec.input("samples").shape, 0.5, np.float32)  # what follows the count is not looked at
        chunk[0, : high - low] = samples[low:high]
        audio, past = session.run(None, {"samples": chunk, "count": np.array([high - low]), "past": past})
        parts.append(audio[0])
    return np.stack(parts)


@pytest.mark.parametrize("name", CLIPS)
def test_the_graph_gives_the_features_of_the_loader(name: str) -> None:
    clip = CLIPS[name]
    count = chunk_edge(CHUNKS, clip.chunk_seconds, clip.sample_rate)
    random, time = np.random.default_rng(5), np.arange(count) / clip.sample_rate
    bell = 0.3 * np.sin(2 * np.pi * 700 * time) * np.exp(-3 * (time % 0.7))
    sound = (bell + random.normal(0, 0.003, count)).astype(np.float32)
    sound[count // 2 : count // 2 + count // 4] = 0
    expected = clip_audio(sound, clip, clip.chunk_seconds, CHUNKS)
    assert relative(streamed(sound, clip), expected) <= 1e-5


def test_silence_is_exact() -> None:
    clip = CLIPS["whole chunks"]
    found = streamed(np.zeros(CHUNKS * 4000, np.float32), clip)
    assert np.abs(found - SILENCE).max() <= 1e-6


def test_a_chunk_shorter_than_a_hop_is_refused() -> None:
    with pytest.raises(ValueError, match="a chunk has 40 samples, expected more than a hop of 80"):
        AudioStep(ClipSpec(sample_rate=8000, fps=200.0, frames_per_chunk=1))
