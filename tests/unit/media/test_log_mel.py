"""Features of sound: an independent reference, causality, streaming, silence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import (
    MEAN_DB,
    SCALE_DB,
    SILENCE,
    StreamingAudio,
    black_frame,
    chunk_edge,
    clip_audio,
    log_mel,
    mel_filters,
    pool_chunk,
)

SPEC = ClipSpec()
# Chunks of a whole number of hops; of 410.96 ms; shorter than a hop; at a rate with a fractional hop.
SPECS = [
    SPEC,
    ClipSpec(fps=7.3, frames_per_chunk=3),
    ClipSpec(fps=240, frames_per_chunk=1),
    ClipSpec(sample_rate=22050, mels=80),
    ClipSpec(level="relative"),
]


def noise(samples: int, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, level, samples).astype(np.float32)


def test_log_mel_is_torchaudios() -> None:
    torch = pytest.importorskip("torch")
    from tests.support.torchaudio_reference import transforms

    window, hop = 400, 160
    reference = transforms.MelSpectrogram(
        SPEC.sample_rate, n_fft=window, hop_length=hop, n_mels=SPEC.mels, center=False, mel_scale="htk", norm=None
    )
    wave = noise(16000)
    padded = torch.from_numpy(np.concatenate([np.zeros(window - hop, np.float32), wave]))
    power = reference(padded).numpy().T * (2 / np.hanning(window + 1)[:-1].sum()) ** 2
    expected = (10 * np.log10(power) - MEAN_DB) / SCALE_DB
    np.testing.assert_allclose(log_mel(wave, SPEC), expected, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.chunk_seconds:.4f}s-{s.sample_rate}-{s.level}")
def test_a_stream_gives_the_numbers_of_the_whole(spec: ClipSpec) -> None:
    chunks = 9
    edges = [chunk_edge(t, spec.chunk_seconds, spec.sample_rate) for t in range(chunks + 1)]
    wave = noise(edges[-1])
    stream = StreamingAudio(spec)
    pushed = np.stack([stream.push(wave[low:high]) for low, high in itertools.pairwise(edges)])
    np.testing.assert_allclose(pushed, clip_audio(wave, spec, spec.chunk_seconds, chunks), atol=1e-6)


def test_a_reset_stream_begins_anew() -> None:
    stream = StreamingAudio(SPEC)
    first = stream.push(noise(8000))
    stream.reset()
    np.testing.assert_array_equal(stream.push(noise(8000)), first)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.chunk_seconds:.4f}s-{s.sample_rate}-{s.level}")
def test_the_future_does_not_change_the_past(spec: ClipSpec) -> None:
    edges = [chunk_edge(t, spec.chunk_seconds, spec.sample_rate) for t in range(5)]
    wave = noise(edges[-1])
    other = wave.copy()
    other[edges[3] :] = 0.9
    whole = [clip_audio(w, spec, spec.chunk_seconds, 4) for w in (wave, other)]
    np.testing.assert_array_equal(whole[0][:3], whole[1][:3])
    assert np.abs(whole[0][3] - whole[1][3]).max() > 0.1


def test_a_click_lies_in_its_own_column() -> None:
    wave = np.zeros(32000, np.float32)
    wave[8000 + 6 * 500 + 250] = 0.9  # chunk 1, in the middle of column 6 of 16
    loud = np.argwhere(clip_audio(wave, SPEC, 0.5, 4).max(axis=2) > SILENCE + 0.5)
    assert loud[0].tolist() == [1, 6]
    assert loud[-1].tolist() in ([1, 6], [1, 7])  # the window is 25 ms long


def test_silence_is_a_constant() -> None:
    quiet = [np.zeros(32000, np.float32), np.random.default_rng(0).integers(-1, 2, 32000).astype(np.float32) / 32768]
    for wave in quiet:  # digital silence, and the rounding noise of 16 bits
        np.testing.assert_allclose(clip_audio(wave, SPEC, 0.5, 4), SILENCE, atol=1e-6)


def test_relative_levels_do_not_know_the_gain() -> None:
    spec = ClipSpec(level="relative")
    wave = noise(32000)
    loud, soft = (clip_audio(w, spec, 0.5, 4) for w in (wave, wave * np.float32(0.1)))
    np.testing.assert_allclose(soft, loud, atol=1e-3)
    np.testing.assert_allclose(loud.mean(axis=(1, 2)), 0.0, atol=1e-5)


def test_relative_silence_is_silence() -> None:
    features = clip_audio(noise(8000), ClipSpec(level="relative"), 0.5, 4)
    np.testing.assert_allclose(features[2:], SILENCE, atol=1e-6)


def test_a_full_scale_sine_is_three() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    assert clip_audio(sine, SPEC, 0.5, 2)[1].max() == pytest.approx(3.0, abs=0.1)


def test_a_short_waveform_goes_on_in_silence() -> None:
    features = clip_audio(noise(8000), SPEC, 0.5, 4)
    np.testing.assert_allclose(features[2:], SILENCE, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 16, 50, 51])
def test_pooling_keeps_the_mean(frames: int) -> None:
    mel = noise(frames * 8).reshape(frames, 8)
    np.testing.assert_allclose(pool_chunk(mel, 16).mean(axis=0), mel.mean(axis=0), atol=1e-6)


def test_a_column_weighs_frames_by_their_share_of_it() -> None:
    ramp = np.arange(50, dtype=np.float32)[:, None]
    columns = pool_chunk(ramp, 16)[:, 0]  # of 3.125 frames each
    assert columns[0] == pytest.approx((0 + 1 + 2 + 0.125 * 3) / 3.125)
    assert columns[1] == pytest.approx((0.875 * 3 + 4 + 5 + 0.25 * 6) / 3.125)


@pytest.mark.parametrize("mels", [8, 32, 64, 128, 256])
def test_no_band_is_empty(mels: int) -> None:
    assert mel_filters(mels, 16000).max(axis=0).min() >= 0.5


def test_chunk_edges_do_not_drift() -> None:
    assert chunk_edge(72_000, 4 / 8.1, 16000) == round(72_000 * 4 / 8.1 * 16000)


def test_black_is_limited_range() -> None:
    assert black_frame(4).tolist() == [[16] * 4] * 4 + [[128] * 4] * 2


def test_a_stream_refuses_what_is_no_waveform() -> None:
    with pytest.raises(ValueError, match=r"\(2, 8000\)"):
        StreamingAudio(SPEC).push(np.zeros((2, 8000), np.float32))
