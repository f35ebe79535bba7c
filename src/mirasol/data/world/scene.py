"""The built-in world's truth: the picture and sound of a clip, drawn from a seed.

Everything is an integer from the raw stream of PCG64, which numpy keeps stable (unlike ``Generator``'s methods): equal
seeds give equal scenes on any processor.

Answers are balanced by construction: every choice that a question can ask about is drawn uniformly and independently
of the others. See docs/world.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
# Together in a quarter of the test clips and in no other clip. One partner less for each colour: the colours stay
# equally frequent, and since both are in the picture their absence as a pair in training rules out no answer.
NOVEL_PAIRS = (("red", "blue"), ("yellow", "cyan"), ("green", "pink"))
NOVEL_EVERY = 4
SOUNDS = ("bell", "buzz", "beep", "noise", "rising", "falling")
SHAPES = ("disc", "square")
RADIUS = {"large": 10, "small": 7, "huge": 15}  # 21, 15 and, in the hard variant, 31 px
FLASH_GROWTH = 2  # added to the radius: 25 and 19 px
FLASH_FRAMES = 2
PLACES = ("left", "right", "top", "bottom")
TRAVEL = (14, 22)  # pixels between the first and the last frame
SOUND_SAMPLES = 5600  # 0.35 s: inside its chunk even when it starts with the second frame, and a window fits
JITTER = 200  # samples of delay at most, so that no onset is on a grid

# The subjects of clips, in percent. `both`: two flashes with a sound each; `one`: a flash with its sound, and other
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
    pitch: int  # hertz, used differently by each sound
    loudness: int  # of 256
    noise: int  # seed of the noise

    @property
    def chunk(self) -> int:
        return self.start // CHUNK_SAMPLES


@dataclass(frozen=True, kw_only=True)
class BaseScene:
    """The picture and sound of a clip, in every variant of the world."""

    split: str
    index: int
    things: tuple[Thing, ...]
    ring: str | None  # colour of the ring around the picture in the first chunk, gone afterwards
    background: int  # luma
    sounds: tuple[Sound, ...]  # in order of time
    frames: int = FRAMES
    has_audio: bool = True

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def group(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class Scene(BaseScene):
    """A clip's truth; ``things`` are a large and a small object."""

    novel: bool  # its pair of colours is in NOVEL_PAIRS
    kind: str  # a key of KINDS
    asked: int  # seed of the choice of questions

    @property
    def group(self) -> str:
        return f"novel-{self.name}" if self.novel else self.name

    @property
    def large(self) -> Thing:
        return self.things[0]

    @property
    def small(self) -> Thing:
        return self.things[1]

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
    chunks = draw.some(range(CHUNKS), CHUNKS)  # for the events: flashes first, then sounds without a flash
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
        has_audio=kind != "trackless",
        things=tuple(
            _thing(draw, size, colour, place, flash.get(size))
            for size, colour, place in zip(("large", "small"), colours, places, strict=True)
        ),
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
    return make_sounds(draw, sorted(zip(where, names, strict=True)), beat.__getitem__, quietest=140)


def make_sounds(
    draw: Draw, events: Sequence[tuple[int, str]], beat: Callable[[int], int], quietest: int
) -> tuple[Sound, ...]:
    """The sounds of ``events`` (chunk, name); ``beat`` of a chunk is the frame of its onset, 0 or 1."""
    pitches = {name: draw.below(256) for name in sorted({name for _, name in events})}
    return tuple(
        Sound(
            name=name,
            start=chunk * CHUNK_SAMPLES + beat(chunk) * FRAME_SAMPLES + draw.below(JITTER),
            pitch=pitches[name],
            loudness=draw.between(quietest, 256),
            noise=draw.below(1 << 31),
        )
        for chunk, name in events
    )
