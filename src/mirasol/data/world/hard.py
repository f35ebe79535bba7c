"""The hard variant of the built-in world: the training data of `mirasol ablate` (docs/ablations.md).

Clips are twice as long as in the demo's world: 8 chunks of half a second, ten colours and ten sounds. Objects and
sounds come and go one chunk at a time, so that every question but the simplest needs several chunks: about order,
coincidence, number, and the very beginning.

For each exact wording the right answer is uniform over its answers. ``muted`` and ``blanked`` of a family are exact,
because a clip with questions about its events always has four objects and four sounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import AUDIO_PROMPT, CAPTION_PROMPT, CLASSIFY_PROMPT
from mirasol.data.world.questions import Family, Text
from mirasol.data.world.scene import (
    COLOURS,
    FRAMES_PER_CHUNK,
    PLACES,
    SHAPES,
    SIZE,
    SOUNDS,
    SPLITS,
    BaseScene,
    Draw,
    Sound,
    Thing,
    make_sounds,
)

CHUNKS = 8
FRAMES = CHUNKS * FRAMES_PER_CHUNK
HARD_COLOURS = (*COLOURS, "orange", "purple", "black", "white")
HARD_SOUNDS = (*SOUNDS, "hum", "knock", "chirp", "siren")
EVENTS = 4  # objects of a clip, and sounds
SHARED = 3  # of them come together
COUNTED = 6  # a clip with counting questions has one to six
COUNT_EVERY = 5  # one clip in five
RING_OF = 2  # one clip in two
ORDINALS = ("first", "second", "third", "last")
NUMBERS = ("one", "two", "three", "four", "five", "six")
SIZE_NAME = "huge"
NOWHERE = -SIZE  # a centre from which nothing reaches into the picture
LENGTHS = (1, 3, 4, 4)  # frames with the object in the picture
SLACK = 2  # pixels: its largest distance from the middle of its half
GREY = (112, 136)  # luma of the background: black and white both stand out
DRIFT = 4  # pixels that an object moves while visible
SEED = 7  # separates the draws from those of the demo's world of the same seed

_C = 1 / len(HARD_COLOURS)
_S = 1 / len(HARD_SOUNDS)
_N = 1 / COUNTED
_ONE = 1 / EVENTS
_NEXT = 1 / (len(HARD_COLOURS) - 1)  # never the colour, or the sound, that the question names
_V, _A, _T = "video", "audio", "time"
HARD_FAMILIES = {
    "gone": Family("memory", (_V,), _C, 1.0, _C, 1.0),
    "nth_colour": Family("order", (_V, _T), _C, 1.0, _C, _ONE),
    "next_colour": Family("order", (_V, _T), _NEXT, 1.0, _NEXT, 1 / (EVENTS - 1)),
    "count_seen": Family("count", (_V,), _N, 1.0, _N, 1.0),
    "nth_sound": Family("order", (_A, _T), _S, _S, 1.0, _ONE),
    "next_sound": Family("order", (_A, _T), _NEXT, _NEXT, 1.0, 1 / (EVENTS - 1)),
    "count_heard": Family("count", (_A,), _N, _N, 1.0, 1.0),
    # Without sound four colours remain to choose from, without picture four sounds.
    "colour_of_sound": Family("audio-visual", (_A, _V), _C, _ONE, _C, 1.0),
    "sound_of_colour": Family("audio-visual", (_A, _V), _S, _S, _ONE, 1.0),
    # The last colour and the last sound. Of five chunks in any order one that has both is last in one of five.
    "classify": Family("audio-visual", (_A, _V, _T), _C * _S, _S, _C, 1 / 5),
}


@dataclass(frozen=True, kw_only=True)
class HardScene(BaseScene):
    """A clip's truth; ``things`` are in order of time, each visible in one chunk."""

    counted: bool  # with counting questions: one colour and one sound, each one to six times
    chunks: tuple[int, ...]  # of each of ``things``
    frames: int = FRAMES

    @property
    def pairs(self) -> tuple[tuple[Thing, Sound], ...]:
        """Objects and sounds of the same chunk, in order of time."""
        sounds = {s.chunk: s for s in self.sounds}
        return tuple((t, sounds[c]) for t, c in zip(self.things, self.chunks, strict=True) if c in sounds)


def sample_hard(seed: int, split: str, index: int) -> HardScene:
    """The truth of clip ``index`` of ``split``: a function of these three alone."""
    if split not in SPLITS:
        raise MirasolError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    draw = Draw(seed, SPLITS.index(split), index, SEED)
    counted = draw.below(COUNT_EVERY) == 0
    if counted:
        seen = sorted(draw.some(range(CHUNKS), draw.between(1, COUNTED)))
        heard = sorted(draw.some(range(CHUNKS), draw.between(1, COUNTED)))
        colours = [draw.choice(HARD_COLOURS)] * len(seen)
        sounds = [draw.choice(HARD_SOUNDS)] * len(heard)
        places = [draw.choice(PLACES) for _ in seen]
    else:
        used = draw.some(range(CHUNKS), 2 * EVENTS - SHARED)
        seen = sorted(used[:EVENTS])
        heard = sorted(used[EVENTS - SHARED :])
        colours = draw.some(HARD_COLOURS, EVENTS)
        sounds = draw.some(HARD_SOUNDS, EVENTS)
        places = draw.some(PLACES, EVENTS)
    ring = draw.choice([c for c in HARD_COLOURS if c not in colours]) if draw.below(RING_OF) else None
    return HardScene(
        split=split,
        index=index,
        counted=counted,
        things=tuple(_thing(draw, *chosen) for chosen in zip(colours, places, seen, strict=True)),
        ring=ring,
        background=draw.between(*GREY),
        sounds=make_sounds(draw, list(zip(heard, sounds, strict=True)), lambda _: draw.below(2), quietest=90),
        chunks=tuple(seen),
    )


def _thing(draw: Draw, colour: str, place: str, chunk: int) -> Thing:
    """An object that is visible for one, three or four frames of its chunk, and moves a little."""
    length = draw.choice(LENGTHS)
    first = chunk * FRAMES_PER_CHUNK + draw.below(FRAMES_PER_CHUNK - length + 1)
    across = SIZE // 4 + draw.between(-SLACK, SLACK) + (SIZE // 2 if place in ("right", "bottom") else 0)
    along = draw.between(SIZE // 2 - 8, SIZE // 2 + 8)
    drift = draw.between(-DRIFT, DRIFT)
    path = []
    for k in range(FRAMES):
        if first <= k < first + length:
            moved = along + drift * (k - first) // FRAMES_PER_CHUNK
            path.append((across, moved) if place in ("left", "right") else (moved, across))
        else:
            path.append((NOWHERE, NOWHERE))
    return Thing(colour, SIZE_NAME, draw.choice(SHAPES), place, "", "", tuple(path), None)


def hard_texts(scene: HardScene) -> list[Text]:
    """All texts about a clip: a caption, its sounds, a class, every question that it can answer."""
    names = " ".join(s.name for s in scene.sounds)
    out = [Text("caption", "", CAPTION_PROMPT, hard_caption(scene)), Text("audio_class", "", AUDIO_PROMPT, names)]
    return out + [Text("qa", *question) for question in hard_questions(scene)]


def hard_caption(scene: HardScene) -> str:
    """The ring, colours in order of time, sounds in order of time: "white, red blue, bell hum"; or how often."""
    if scene.counted:
        thing, sound = scene.things[0], scene.sounds[0]
        return f"{NUMBERS[len(scene.things) - 1]} {thing.colour}, {NUMBERS[len(scene.sounds) - 1]} {sound.name}"
    colours, sounds = " ".join(t.colour for t in scene.things), " ".join(s.name for s in scene.sounds)
    return ", ".join(part for part in (scene.ring, colours, sounds) if part)


def hard_questions(scene: HardScene) -> Iterator[tuple[str, str, str]]:
    """Every question that the clip can answer: (family, prompt, answer)."""
    if scene.ring:
        yield "gone", "Which colour was the ring?", scene.ring
    if scene.counted:
        yield "count_seen", "How many objects are seen?", NUMBERS[len(scene.things) - 1]
        yield "count_heard", "How many sounds are heard?", NUMBERS[len(scene.sounds) - 1]
        return
    yield "classify", CLASSIFY_PROMPT, f"{scene.things[-1].colour} {scene.sounds[-1].name}"
    for nth, thing, sound in zip(ORDINALS, scene.things, scene.sounds, strict=True):
        yield "nth_colour", f"Which colour came {nth}?", thing.colour
        yield "nth_sound", f"Which sound came {nth}?", sound.name
    for one, other in itertools.pairwise(scene.things):
        yield "next_colour", f"Which colour came after {one.colour}?", other.colour
    for before, after in itertools.pairwise(scene.sounds):
        yield "next_sound", f"Which sound came after the {before.name}?", after.name
    for thing, sound in scene.pairs:
        yield "colour_of_sound", f"Which colour came with the {sound.name}?", thing.colour
        yield "sound_of_colour", f"Which sound came with {thing.colour}?", sound.name
