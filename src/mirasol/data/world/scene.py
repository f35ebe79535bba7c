"""The built-in world's truth: what a clip shows and sounds like, drawn from a seed.

Everything is an integer and comes from the raw stream of PCG64, which numpy keeps the same for ever (it does
not promise that for ``Generator``'s methods): equal seeds give equal scenes on any processor.

Answers are balanced by construction: every choice that a question can ask about is drawn uniformly and apart
from the others. See docs/world.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mirasol.core.errors import MirasolError

SIZE = 48  # pixels, height and width
FPS = 8
CHUNKS = 4
FRAMES_PER_CHUNK = 4
FRAMES = CHUNKS * FRAMES_PER_CHUNK
SAMPLE_RATE = 16000
CHUNK_SAMPLES = SAMPLE_RATE * FRAMES_PER_CHUNK // FPS
FRAME_SAMPLES = SAMPLE_RATE // FPS
SAMPLES = CHUNKS * CHUNK_SAMPLES

SPLITS = ("train", "val", "test")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "pink")
# Seen together in a quarter of the test clips and nowhere else. One partner less for each colour: the colours
# stay equally frequent, and since both are in the picture the habit of not seeing them together rules out no answer.
NOVEL_PAIRS = (("red", "blue"), ("yellow", "cyan"), ("green", "pink"))
NOVEL_EVERY = 4
SOUNDS = ("bell", "buzz", "beep", "noise", "rising", "falling")
SHAPES = ("disc", "square")
RADIUS = {"large": 10, "small": 7, "huge": 15}  # 21, 15 and, in the hard variant, 31 px
FLASH_GROWTH = 2  # added to the radius: 25 and 19 px
FLASH_FRAMES = 2
PLACES = ("left", "right", "top", "bottom")
TRAVEL = (14, 22)  # pixels between the first and the last frame
SOUND_SAMPLES = 5600  # 0.35 s: inside its chunk even when it starts with the second frame, with room for a window
JITTER = 200  # samples of delay at most, so that no onset stands on a grid

# What a clip is about, in percent. `both`: two flashes with a sound each; `one`: a flash with its sound, and other
# sounds; `half`: two flashes, a sound with one of them; `count`: beeps; `alone`: sounds without a flash;
# `silent`: two flashes and a silent track; `trackless`: two flashes and no audio track.
KINDS = {"both": 38, "one": 16, "half": 14, "count": 12, "alone": 12, "silent": 4, "trackless": 4}

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """A coloured object that moves along its own half of the picture."""

    colour: str
    size: str  # "large" or "small"
    shape: str
    place: str  # its half: one of PLACES
    motion: str  # "up", "down", "left" or "right"
    verb: str  # "moves", "enters" or "leaves"
    path: tuple[tuple[int, int], ...]  # its centre (x, y) in each frame; outside the picture before it enters
    flash: int | None  # the first of its two bright frames

    @property
    def flash_chunk(self) -> int | None:
        return None if self.flash is None else self.flash // FRAMES_PER_CHUNK


@dataclass(frozen=True)
class Sound:
    """A sound that starts and ends inside its chunk."""

    name: str
    start: int  # in samples from the start of the clip
    pitch: int  # hertz: what it means depends on the sound
    loudness: int  # of 256
    noise: int  # seed of the noise

    @property
    def chunk(self) -> int:
        return self.start // CHUNK_SAMPLES


@dataclass(frozen=True)
class Scene:
    """A clip's truth."""

    split: str
    index: int
    novel: bool  # its pair of colours is in NOVEL_PAIRS
    kind: str  # a key of KINDS
    large: Thing
    small: Thing
    ring: str | None  # colour of the ring around the picture in the first chunk, gone afterwards
    background: int  # luma
    sounds: tuple[Sound, ...]  # in order of time
    asked: int  # seed of the choice of questions

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def group(self) -> str:
        return f"novel-{self.name}" if self.novel else self.name

    @property
    def frames(self) -> int:
        return FRAMES

    @property
    def has_audio(self) -> bool:
        return self.kind != "trackless"

    @property
    def things(self) -> tuple[Thing, Thing]:
        return self.large, self.small

    @property
    def flashes(self) -> tuple[Thing, ...]:
        """The objects that flash, in order of time."""
        return tuple(sorted((t for t in self.things if t.flash is not None), key=lambda t: t.flash or 0))

    def sound_of(self, thing: Thing) -> Sound | None:
        """The sound that comes with the flash of ``thing``."""
        return next((s for s in self.sounds if s.chunk == thing.flash_chunk), None)

    def thing_of(self, sound: Sound) -> Thing | None:
        """The object that flashes with ``sound``."""
        return next((t for t in self.flashes if t.flash_chunk == sound.chunk), None)


class Draw:
    """Small whole numbers from the raw stream of PCG64."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))
        self._raw: list[int] = []

    def below(self, n: int) -> int:
        """A whole number in [0, n)."""
        if not self._raw:
            self._raw = self._bits.random_raw(64).tolist()
        return ((self._raw.pop() >> 32) * n) >> 32

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different items in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]


def sample_clip(seed: int, split: str, index: int) -> Scene:
    """The truth of clip ``index`` of ``split``: a function of these three alone."""
    if split not in SPLITS:
        raise MirasolError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    draw = Draw(seed, SPLITS.index(split), index)
    novel = split == "test" and index % NOVEL_EVERY == NOVEL_EVERY - 1
    kind = _kind(draw.below(100))
    colours = _colours(draw, novel)
    chunks = draw.some(range(CHUNKS), CHUNKS)  # who takes which chunk: flashes first, then sounds without a flash
    flashing = {"both": 2, "one": 1, "half": 2, "silent": 2, "trackless": 2}.get(kind, 0)
    flashers = draw.some(("large", "small"), flashing)
    beat = [draw.below(2) for _ in range(CHUNKS)]  # a flash starts with the first or the second frame of its chunk
    flash = {size: chunks[i] * FRAMES_PER_CHUNK + beat[chunks[i]] for i, size in enumerate(flashers)}
    halves = ("left", "right") if draw.below(2) else ("top", "bottom")
    places = draw.some(halves, 2)
    return Scene(
        split=split,
        index=index,
        novel=novel,
        kind=kind,
        large=_thing(draw, "large", colours[0], places[0], flash.get("large")),
        small=_thing(draw, "small", colours[1], places[1], flash.get("small")),
        ring=draw.choice([c for c in COLOURS if c not in colours]) if draw.below(10) < 6 else None,
        background=draw.between(18, 34),
        sounds=_sounds(draw, kind, chunks, beat),
        asked=draw.below(1 << 31),
    )


def _kind(percent: int) -> str:
    for kind, share in KINDS.items():
        percent -= share
        if percent < 0:
            return kind
    raise AssertionError("the shares of KINDS must sum to 100")


def _colours(draw: Draw, novel: bool) -> tuple[str, str]:
    """The colours of the large and of the small object, each uniform over COLOURS."""
    pairs = [
        (a, b) for a in COLOURS for b in COLOURS if a != b and novel == ((a, b) in NOVEL_PAIRS or (b, a) in NOVEL_PAIRS)
    ]
    return draw.choice(pairs)


def _thing(draw: Draw, size: str, colour: str, place: str, flash: int | None) -> Thing:
    radius = RADIUS[size]
    upright = place in ("left", "right")  # halves side by side: the objects move up and down
    forward = draw.below(2) == 1
    slack = SIZE // 4 - radius - 1
    across = SIZE // 4 + draw.between(-slack, slack) + (SIZE // 2 if place in ("right", "bottom") else 0)
    travel = draw.between(*TRAVEL)
    start = draw.between(radius, SIZE - 1 - radius - travel)
    stop = start + travel
    # Some come into the picture or leave it, and flash in the other half of the clip, well inside.
    verb, luck = "moves", draw.below(20)
    chunk = None if flash is None else flash // FRAMES_PER_CHUNK
    if luck < 3 and chunk not in (0, 1):
        verb = "enters"
        start = -radius - 1
        stop = draw.between(SIZE // 2, SIZE - 1 - radius)
    elif luck >= 17 and chunk not in (CHUNKS - 2, CHUNKS - 1):
        verb = "leaves"
        start = draw.between(radius, SIZE // 2 - 1)
        stop = SIZE + radius
    line = [start + (stop - start) * k // (FRAMES - 1) for k in range(FRAMES)]
    if not forward:
        line = [SIZE - 1 - c for c in line]
    path = tuple((across, c) if upright else (c, across) for c in line)
    motion = (("up", "down") if upright else ("left", "right"))[forward]
    return Thing(colour, size, draw.choice(SHAPES), place, motion, verb, path, flash)


def _sounds(draw: Draw, kind: str, chunks: Sequence[int], beat: Sequence[int]) -> tuple[Sound, ...]:
    """The sounds in order of time. ``chunks`` begins with those of the flashes."""
    fewest, most = {"both": (2, 3), "one": (2, 3), "count": (1, CHUNKS), "alone": (1, 3)}.get(kind, (0, 0))
    where = [chunks[draw.below(2)]] if kind == "half" else list(chunks[: draw.between(fewest, most)])
    names = ["beep"] * len(where) if kind == "count" else draw.some(SOUNDS, len(where))
    pitches = {name: draw.below(256) for name in sorted(set(names))}
    return tuple(
        Sound(
            name=name,
            start=chunk * CHUNK_SAMPLES + beat[chunk] * FRAME_SAMPLES + draw.below(JITTER),
            pitch=pitches[name],
            loudness=draw.between(140, 256),
            noise=draw.below(1 << 31),
        )
        for chunk, name in sorted(zip(where, names, strict=True))
    )
