"""The built-in world's sound, in whole numbers only.

A sine from the C library or from numpy's vector units may differ in its last bit between processors, and with
it now and then a sample. Here phases, waves and envelopes are integers, so there is nothing to differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirasol.data.world.scene import FRAME_SAMPLES, SAMPLE_RATE, SOUND_SAMPLES, Sound

Samples = NDArray[np.int64]


class Heard(Protocol):
    """What a scene must say of itself to be heard."""

    @property
    def frames(self) -> int: ...
    @property
    def sounds(self) -> tuple[Sound, ...]: ...


ONE = 1 << 15  # fixed point: 1.0
STEP = 64  # samples are multiples of this: 10 bits, 60 dB, which a lossless track stores in less space than 16
ATTACK, RELEASE = 80, 480  # samples


def sound(scene: Heard) -> NDArray[np.float32]:
    """The waveform of a clip, float32 [samples] in [-1, 1): what a decoder gives for its track."""
    return (samples(scene).astype(np.float32)) / np.float32(ONE)


def samples(scene: Heard) -> NDArray[np.int16]:
    """The waveform of a clip as the track stores it, int16 [samples]; exact zeros where nothing sounds."""
    out = np.zeros(scene.frames * FRAME_SAMPLES, np.int16)
    for event in scene.sounds:
        wave = VOICES[event.name](event) * event.loudness >> 8
        out[event.start : event.start + SOUND_SAMPLES] = wave // STEP * STEP
    return out


def _sine_table() -> Samples:
    """A period of 4096 steps by Bhaskara's formula, within 0.2 % of the sine: overtones below -50 dB."""
    half = 2048
    x = np.arange(half, dtype=np.int64)
    q = x * (half - x)
    hill = 16 * q * (ONE - 1) // (5 * half * half - 4 * q)
    return np.concatenate([hill, -hill])


SINE = _sine_table()
CLOCK = np.arange(SOUND_SAMPLES, dtype=np.int64)
FADE = np.minimum(
    np.minimum(CLOCK * ONE // ATTACK, (SOUND_SAMPLES - 1 - CLOCK) * ONE // RELEASE),
    ONE,
)
_LEFT = (SOUND_SAMPLES - CLOCK) * ONE // SOUND_SAMPLES
DECAY = _LEFT * _LEFT // ONE * _LEFT // ONE  # cubic: a struck bell


def _tone(hertz: int) -> Samples:
    """A sine of one frequency, full scale."""
    step = hertz * (1 << 32) // SAMPLE_RATE
    return _sine(CLOCK * step)


def _sweep(first: int, last: int) -> Samples:
    """A sine whose frequency goes evenly from ``first`` to ``last`` hertz."""
    hertz_x = first * SOUND_SAMPLES + (last - first) * CLOCK
    steps = hertz_x * (1 << 16) // SAMPLE_RATE * (1 << 16) // SOUND_SAMPLES
    return _sine(np.cumsum(steps))


def _sine(phase: Samples) -> Samples:
    """The sine of phases in 2**-32 of a turn."""
    wave: Samples = SINE[(phase >> 20) & 4095]
    return wave


def _bell(event: Sound) -> Samples:
    base = 600 + event.pitch
    parts = 4 * _tone(base) + 3 * _tone(base * 276 // 100) + 2 * _tone(base * 540 // 100)
    return (parts // 10) * DECAY // ONE * FADE // ONE


def _buzz(event: Sound) -> Samples:
    step = (90 + event.pitch // 6) * (1 << 32) // SAMPLE_RATE
    saw = ((CLOCK * step >> 16) & 0xFFFF) - ONE
    return saw * 2 // 5 * FADE // ONE


def _beep(event: Sound) -> Samples:
    return _tone(1100 + event.pitch) // 2 * FADE // ONE


def _noise(event: Sound) -> Samples:
    raw = np.random.PCG64(np.random.SeedSequence(event.noise)).random_raw(SOUND_SAMPLES)
    white = (raw >> np.uint64(48)).astype(np.int64) - ONE
    return white * 2 // 5 * FADE // ONE


def _rising(event: Sound) -> Samples:
    return _sweep(350 + event.pitch // 2, 2200 + 2 * event.pitch) // 2 * FADE // ONE


def _falling(event: Sound) -> Samples:
    return _sweep(2200 + 2 * event.pitch, 350 + event.pitch // 2) // 2 * FADE // ONE


def _hum(event: Sound) -> Samples:
    return (2 * _tone(180 + event.pitch // 4) + _tone(360 + event.pitch // 2)) // 5 * FADE // ONE


def _knock(event: Sound) -> Samples:
    """Five strokes, each dying away within its fifth."""
    fifth = SOUND_SAMPLES // 5
    left = (fifth - CLOCK % fifth) * ONE // fifth
    return _tone(420 + event.pitch // 2) // 2 * (left * left // ONE * left // ONE) // ONE * FADE // ONE


def _chirp(event: Sound) -> Samples:
    """A high tone that is on for one eighth and off for the next."""
    return _tone(3000 + 4 * event.pitch) // 2 * (CLOCK * 8 // SOUND_SAMPLES % 2) * FADE // ONE


def _siren(event: Sound) -> Samples:
    """Up and down again."""
    half = SOUND_SAMPLES // 2
    up = np.minimum(CLOCK, SOUND_SAMPLES - 1 - CLOCK)
    steps = ((600 + event.pitch) * half + 1400 * up) * (1 << 16) // SAMPLE_RATE * (1 << 16) // half
    return _sine(np.cumsum(steps)) // 2 * FADE // ONE


VOICES: dict[str, Callable[[Sound], Samples]] = {
    "bell": _bell,
    "buzz": _buzz,
    "beep": _beep,
    "noise": _noise,
    "rising": _rising,
    "falling": _falling,
    "hum": _hum,  # from here on the hard variant's
    "knock": _knock,
    "chirp": _chirp,
    "siren": _siren,
}
