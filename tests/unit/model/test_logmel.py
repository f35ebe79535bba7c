"""Log-mel on the device equals the loader's features, at any rate, chunk and level."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.model import random_batch, tiny_model

from mirasol.data.loading.loader import log_mel_of
from mirasol.data.loading.waveform import chunk_lengths, cut
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE, clip_audio
from mirasol.model.batch import Waveform
from mirasol.model.logmel import BLOCK, LogMel, LogMelSpec, pooling
from mirasol.model.parameter_groups import parameter_groups

# Chunks of a whole number of hops; that vary by a sample; shorter than a hop, and varying; at other rates; levelled.
SPECS = [
    ClipSpec(),
    ClipSpec(fps=7.3, frames_per_chunk=3),
    ClipSpec(fps=240, frames_per_chunk=1),
    ClipSpec(fps=29.97, frames_per_chunk=8, sample_rate=8000),
    ClipSpec(sample_rate=22050, mels=80),
    ClipSpec(sample_rate=44100, mels=128, fps=25, chunks=9),
    ClipSpec(level="relative"),
    ClipSpec(fps=7.3, frames_per_chunk=3, level="relative", mels=64),
]


def name_of(spec: ClipSpec) -> str:
    return f"{spec.chunk_seconds:.4f}s-{spec.sample_rate}-{spec.mels}-{spec.level}"


def sound_of(spec: ClipSpec, seed: int = 0) -> np.ndarray:
    """16-bit noise that comes and goes, with a stretch of digital silence and a short click in it."""
    count = int(chunk_lengths(spec).sum())
    draws = np.random.default_rng(seed)
    swell = 0.02 + 0.98 * np.sin(np.arange(count) * 8 / count) ** 2
    sound = (draws.normal(0, 4000, count) * swell).astype(np.int16)
    sound[count // 2 : count * 3 // 4] = 0
    sound[count * 5 // 8] = 30000
    return sound


def on_device(sound: np.ndarray, spec: ClipSpec, heard: int) -> np.ndarray:
    found = cut(sound, spec, heard)
    with torch.no_grad():
        mel = log_mel_of(spec)(torch.from_numpy(found.chunks), torch.from_numpy(found.samples))
    return mel[0].numpy()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_it_gives_the_features_of_the_loader(spec: ClipSpec) -> None:
    for seed in range(3):
        sound = sound_of(spec, seed)
        expected = clip_audio(sound / np.float32(32768), spec, spec.chunk_seconds, spec.chunks)
        np.testing.assert_allclose(on_device(sound, spec, spec.chunks), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spec", [ClipSpec(), ClipSpec(mels=64), ClipSpec(sample_rate=44100, mels=128)], ids=name_of)
def test_bands_beside_a_full_tone_are_as_near_as_single_precision_lets_them(spec: ClipSpec) -> None:
    """80 dB below a tone the seventh digit of its spectrum is the third of a band's: 1e-5 is 0.0002 dB."""
    times = np.arange(int(chunk_lengths(spec).sum())) / spec.sample_rate
    for tone in (np.sin(2 * np.pi * 1000 * times), np.sin(2 * np.pi * (100 + 1500 * times) * times)):
        sound = np.rint(0.9 * 32767 * tone).astype(np.int16)
        expected = clip_audio(sound / np.float32(32768), spec, spec.chunk_seconds, spec.chunks)
        np.testing.assert_allclose(on_device(sound, spec, spec.chunks), expected, rtol=0, atol=5e-5)


def test_these_specs_have_chunks_that_vary_and_chunks_below_a_hop() -> None:
    assert any(len(set(chunk_lengths(spec).tolist())) == 2 for spec in SPECS)
    assert any(chunk_lengths(spec).max() < spec.sample_rate // 100 for spec in SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_sound_that_ends_early_goes_on_in_silence(spec: ClipSpec) -> None:
    lengths = chunk_lengths(spec)
    sound = sound_of(spec)[: int(lengths[0] + lengths[1] // 2)]
    expected = clip_audio(sound / np.float32(32768), spec, spec.chunk_seconds, 2)
    np.testing.assert_allclose(on_device(sound, spec, 2)[:2], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", ["absolute", "relative"])
def test_silence_is_exact(level: str) -> None:
    spec = ClipSpec(level=level)
    assert (on_device(np.zeros(32000, np.int16), spec, 4) == np.float32(SILENCE)).all()
    assert (on_device(sound_of(spec), spec, 1)[1:] == np.float32(SILENCE)).all()  # of chunks that are absent


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ClipSpec()
    whole = on_device(sound_of(spec), spec, 4)
    monkeypatch.setattr("mirasol.model.logmel.BLOCK", 1)
    assert BLOCK > 1
    np.testing.assert_allclose(on_device(sound_of(spec), spec, 4), whole, rtol=0, atol=1e-6)


def test_a_float_waveform_is_taken_as_it_is() -> None:
    spec = ClipSpec()
    found = cut(sound_of(spec), spec, 4)
    chunks, samples = torch.from_numpy(found.chunks), torch.from_numpy(found.samples)
    log_mel = log_mel_of(spec)
    assert torch.equal(log_mel(chunks.float() / 32768, samples), log_mel(chunks, samples))


def test_weights_of_pooling_sum_to_one() -> None:
    weights = pooling(torch.tensor([1, 3, 16, 50]), 16, 50)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 16))
    assert not weights[0, :, 1:].any() and not weights[1, :, 3:].any()


def sound_for(batch, spec: ClipSpec) -> Waveform:
    clips, chunks = batch.audio_present.shape
    found = [cut(sound_of(dataclasses.replace(spec, chunks=chunks), seed), spec, chunks) for seed in range(clips)]
    return Waveform(
        torch.stack([torch.from_numpy(f.chunks) for f in found]),
        torch.stack([torch.from_numpy(f.samples) for f in found]),
        torch.zeros(clips, 1, 4, dtype=torch.int64),
        torch.ones(clips, 1),
    )


SMALL = ClipSpec(size=16, mels=8, audio_bands=2)  # of the tiny model


def test_a_model_makes_its_own_features_of_a_waveform() -> None:
    model = tiny_model()
    model.log_mel = log_mel_of(SMALL)
    batch = random_batch(model.config)
    sound = sound_for(batch, SMALL)
    features = model.log_mel.of_waveform(sound, batch.audio_present)
    heard = dataclasses.replace(batch, audio=torch.empty(0), waveform=sound)
    ours, theirs = model(heard), model(dataclasses.replace(batch, audio=features))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_decibels_are_not_rounded_under_autocast() -> None:
    model = tiny_model()
    model.log_mel = log_mel_of(SMALL)
    batch = random_batch(model.config)
    heard = dataclasses.replace(batch, audio=torch.empty(0), waveform=sound_for(batch, SMALL))
    expected = model.log_mel.of_waveform(heard.waveform, batch.audio_present)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.to_log_mel(heard).audio, expected)


def test_it_has_no_weights_and_no_part_of_its_own() -> None:
    model = tiny_model()
    names, groups = set(model.state_dict()), parameter_groups(model)
    model.log_mel = log_mel_of(SMALL)
    assert (set(model.state_dict()), parameter_groups(model)) == (names, groups)


def test_a_model_without_log_mel_says_so() -> None:
    model = tiny_model()
    batch = random_batch(model.config)
    with pytest.raises(ValueError, match="a model without `log_mel`"):
        model(dataclasses.replace(batch, waveform=sound_for(batch, SMALL)))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("samples", torch.zeros(2, 1, 3), r"waveform.samples has shape \(2, 1, 3\), expected \(2, 1, 4\)"),
        ("masks", torch.zeros(2, 4), r"waveform.masks has shape \(2, 4\), expected \(2, 1, 4\)"),
        ("chunks", torch.zeros(2, 4, 900), r"waveform.chunks has shape \(2, 4, 900\), expected \[B, n, T, W\]"),
        ("chunks", torch.zeros(2, 1, 4, 9000), r"waveform.chunks is torch.float32, expected torch.int16"),
    ],
)
def test_what_does_not_fit_is_told(name: str, value: torch.Tensor, told: str) -> None:
    model = tiny_model()
    model.log_mel = log_mel_of(SMALL)
    batch = random_batch(model.config)
    sound = dataclasses.replace(sound_for(batch, SMALL), **{name: value})
    with pytest.raises(ValueError, match=told):
        model(dataclasses.replace(batch, waveform=sound))


def test_filters_of_a_transform_shorter_than_a_window_are_refused() -> None:
    spec = LogMelSpec(400, 160, 4, floor=1e-8, mean_db=-60.0, scale_db=20.0, relative=False)
    with pytest.raises(ValueError, match="a transform of 64 samples, expected at least 400"):
        LogMel(torch.ones(33, 8), spec)


def test_rows_without_room_for_a_frame_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 500\), expected \[\.\.\., W\] with W at least 560"):
        log_mel_of(ClipSpec())(torch.zeros(2, 500), torch.zeros(2))
