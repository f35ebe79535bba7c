"""The world's sound: whole numbers, quiet between, and six voices that differ."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from mirasol.data.world.make import sample_clip, samples, sound
from mirasol.data.world.scene import SAMPLE_RATE, SAMPLES, SOUND_SAMPLES, SOUNDS, Sound
from mirasol.data.world.sound import ONE, SINE, STEP, VOICES


def voice(name: str, pitch: int = 128) -> np.ndarray:
    return VOICES[name](Sound(name, 0, pitch, 256, 5)).astype(np.float64)


def peak_hertz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax()) * SAMPLE_RATE / len(wave)


def test_the_table_is_a_sine_within_two_thousandths() -> None:
    true = [(ONE - 1) * math.sin(2 * math.pi * i / 4096) for i in range(4096)]
    assert np.abs(SINE - np.array(true)).max() < 0.002 * ONE


def test_these_samples_are_the_same_for_ever() -> None:
    digest = hashlib.sha256(b"".join(samples(sample_clip(1, "train", i)).tobytes() for i in range(40)))
    assert digest.hexdigest() == GOLDEN_SOUND


@pytest.mark.parametrize("name", SOUNDS)
def test_a_voice_is_made_of_whole_numbers_and_never_clips(name: str) -> None:
    for pitch in (0, 255):
        wave = VOICES[name](Sound(name, 0, pitch, 256, 1))
        assert wave.dtype == np.int64
        assert ONE // 8 < np.abs(wave).max() < ONE


@pytest.mark.parametrize("name", SOUNDS)
def test_a_voice_fades_at_both_ends(name: str) -> None:
    wave = voice(name)
    assert abs(wave[0]) < ONE // 100 and abs(wave[-1]) < ONE // 100


def test_it_is_quiet_between_the_sounds() -> None:
    scene = next(s for s in (sample_clip(1, "train", i) for i in range(100)) if len(s.sounds) == 3)
    wave = samples(scene)
    for event in scene.sounds:
        assert np.abs(wave[event.start : event.start + SOUND_SAMPLES]).max() > ONE // 20
        wave[event.start : event.start + SOUND_SAMPLES] = 0
    assert not wave.any()


def test_samples_are_multiples_of_a_step() -> None:
    scene = next(s for s in (sample_clip(1, "train", i) for i in range(100)) if s.sounds)
    assert not (samples(scene) % STEP).any()


def test_the_waveform_is_the_track_over_its_full_scale() -> None:
    scene = sample_clip(1, "train", 2)
    wave = sound(scene)
    assert wave.dtype == np.float32 and wave.shape == (SAMPLES,)
    assert np.array_equal(wave * ONE, samples(scene))


def test_rising_rises_and_falling_falls() -> None:
    half = SOUND_SAMPLES // 2
    assert peak_hertz(voice("rising")[:half]) * 1.5 < peak_hertz(voice("rising")[half:])
    assert peak_hertz(voice("falling")[:half]) > 1.5 * peak_hertz(voice("falling")[half:])


def test_a_beep_holds_its_pitch_and_a_bell_dies_away() -> None:
    half = SOUND_SAMPLES // 2
    assert abs(peak_hertz(voice("beep")[:half]) - peak_hertz(voice("beep")[half:])) < 10
    beep, bell = (np.square(voice(n)) for n in ("beep", "bell"))
    assert beep[:half].sum() < 1.3 * beep[half:].sum()
    assert bell[:half].sum() > 5 * bell[half:].sum()


def test_a_buzz_is_low_and_noise_is_flat() -> None:
    assert peak_hertz(voice("buzz")) < 150
    power = np.square(np.abs(np.fft.rfft(voice("noise"))))
    low, high = power[: len(power) // 2].sum(), power[len(power) // 2 :].sum()
    assert 0.8 < low / high < 1.25


GOLDEN_SOUND = "920ae7f8ef82d3d51bc7534e1ca8d6545f3d25e553629c4657a00e05368a513f"
