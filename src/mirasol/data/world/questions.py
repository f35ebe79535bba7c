"""The questions of the built-in world, and the best scores without sound, picture or order.

For every exact wording the right answer is uniform over its answers: words alone give chance. ``muted`` and ``blanked``
are the best scores with the picture alone, or the sound alone; a test plays them. ``shuffled`` is the best score with
the content of each chunk but no clue to their order (docs/world.md names possible clues); a test computes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mirasol.data.manifest import AUDIO_PROMPT, CAPTION_PROMPT, CLASSIFY_PROMPT
from mirasol.data.world.scene import Draw, Scene, Thing

NUMBERS = ("one", "two", "three", "four")
QUARTERS = ("first", "second", "third", "fourth")
# Asked whenever they apply, because they are the hardest to learn; others fill up to QUESTIONS.
ALWAYS = ("flash_of_sound", "sound_of_flash", "count", "when", "pitch")
QUESTIONS = 9  # at most per clip, without the classification


class Text(NamedTuple):
    """One text about a clip."""

    task: str  # a task of the manifest
    family: str  # a key of FAMILIES, "" for captions and sound classes
    prompt: str
    answer: str


@dataclass(frozen=True)
class Family:
    """A kind of question: its needs, and the best share of right answers without them."""

    kind: str
    needs: tuple[str, ...]
    chance: float  # from the words of the question alone
    muted: float  # from the words and the picture
    blanked: float  # from the words and the sound
    shuffled: float  # from everything but the order of the chunks


_COLOUR = 1 / 6
_SOUND = 1 / 6
# One of the two or three sounds of the clip, weighted by the questions about clips with two and with three.
_FIRST = 17360969 / 42158538
_NEXT = 7026423 / 10744723  # of two sounds the other one; of three one of the two others
_CLASS = 263 / 480  # the large colour is certain; one of one to three sounds

FAMILIES = {
    "colour": Family("seen", ("video",), _COLOUR, 1.0, _COLOUR, 1.0),
    "size": Family("seen", ("video",), 1 / 2, 1.0, 1 / 2, 1.0),
    "place": Family("seen", ("video",), _COLOUR, 1.0, _COLOUR, 1.0),
    "motion": Family("seen", ("video",), 1 / 4, 1.0, 1 / 4, 1.0),
    "sound": Family("heard", ("audio",), _SOUND, _SOUND, 1.0, 1.0),
    "pitch": Family("heard", ("audio",), 1 / 2, 1 / 2, 1.0, 1.0),
    "when": Family("heard", ("audio",), _SOUND, _SOUND, 1.0, 1 / 2),
    # Two objects flash: without sound the choice is between their two colours.
    "flash_of_sound": Family("audio-visual", ("audio", "video"), _COLOUR, 1 / 2, _COLOUR, 1.0),
    # Two sounds: without picture the choice is between them.
    "sound_of_flash": Family("audio-visual", ("audio", "video"), _SOUND, _SOUND, 1 / 2, 1.0),
    "classify": Family("audio-visual", ("audio", "video"), _COLOUR * _SOUND, _SOUND, _COLOUR, _CLASS),
    "first_sound": Family("order", ("audio",), _SOUND, _SOUND, 1.0, _FIRST),
    "next_sound": Family("order", ("audio",), 1 / 5, 1 / 5, 1.0, _NEXT),  # never the sound that the question names
    "first_flash": Family("order", ("video",), _COLOUR, 1.0, _COLOUR, 1 / 2),
    "gone": Family("memory", ("video",), _COLOUR, 1.0, _COLOUR, 1.0),
    "count": Family("count", ("audio",), 1 / 4, 1 / 4, 1.0, 1.0),
}


def texts(scene: Scene) -> list[Text]:
    """All texts about a clip: a caption, its sounds if it has a track, a class, questions."""
    out = [Text("caption", "", CAPTION_PROMPT, caption(scene))]
    if scene.has_audio:
        names = " ".join(s.name for s in scene.sounds) or "silence"
        out.append(Text("audio_class", "", AUDIO_PROMPT, names))
    if scene.sounds and scene.kind != "count":
        out.append(Text("qa", "classify", CLASSIFY_PROMPT, f"{scene.large.colour} {scene.sounds[0].name}"))
    possible = [Text("qa", *question) for question in questions(scene)]
    chosen = [q for q in possible if q.family in ALWAYS]
    others = [q for q in possible if q.family not in ALWAYS]
    # The choice is independent of the answers.
    chosen += Draw(scene.asked).some(others, min(len(others), max(QUESTIONS - len(chosen), 0)))
    return out + [q for q in possible if q in chosen]


def caption(scene: Scene) -> str:
    """At most 22 words: the motion of the objects, the ring, and flashes and sounds in order of time."""
    parts = [f"{t.size} {t.colour} {t.place} {t.verb} {t.motion}" for t in scene.things]
    if scene.ring:
        parts.append(f"{scene.ring} ring")
    if scene.kind == "count":
        beeps = len(scene.sounds)
        parts.append(f"{NUMBERS[beeps - 1]} {'beep' if beeps == 1 else 'beeps'}")
    else:
        events: dict[int, str] = {s.chunk: s.name for s in scene.sounds}
        for t in scene.flashes:
            sound = scene.sound_of(t)
            events[t.flash_chunk or 0] = f"{t.colour} flashes" + (f" with {sound.name}" if sound else "")
        parts += [events[chunk] for chunk in sorted(events)]
    return ", ".join(parts)


def questions(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Every question that the clip can answer: (family, prompt, answer)."""
    yield from _seen(scene)
    if scene.kind == "count":
        yield "count", "How many beeps are heard?", NUMBERS[len(scene.sounds) - 1]
    elif scene.sounds:
        yield from _heard(scene)
        yield from _both(scene)


def _seen(scene: Scene) -> Iterator[tuple[str, str, str]]:
    for t in scene.things:
        yield "colour", f"What colour is the {t.size} one?", t.colour
        yield "size", f"Is the {t.colour} one large or small?", t.size
        yield "place", f"What colour is the one at the {t.place}?", t.colour
        yield "motion", f"Which way does the {t.size} one move?", t.motion
    if len(scene.flashes) == 2:
        yield "first_flash", "Which colour flashed first?", scene.flashes[0].colour
    if scene.ring:
        yield "gone", "Which colour was the ring that is gone?", scene.ring


def _heard(scene: Scene) -> Iterator[tuple[str, str, str]]:
    names = [s.name for s in scene.sounds]
    if len(names) == 1:
        yield "sound", "Which sound is heard?", names[0]
    else:
        yield "first_sound", "Which sound came first?", names[0]
        for before, after in itertools.pairwise(names):
            yield "next_sound", f"What sound came after the {phrase(before)}?", after
    if ("rising" in names) != ("falling" in names):
        yield "pitch", "Does the tone rise or fall?", "rising" if "rising" in names else "falling"
    if not scene.flashes:  # other questions ask about flashes
        for s in scene.sounds:
            yield "when", f"Which sound is heard in the {QUARTERS[s.chunk]} quarter?", s.name


def _both(scene: Scene) -> Iterator[tuple[str, str, str]]:
    flashes: tuple[Thing, ...] = scene.flashes
    if len(flashes) == 2:  # a single one could be named without hearing
        for s in scene.sounds:
            thing = scene.thing_of(s)
            if thing:
                yield "flash_of_sound", f"Which colour flashed with the {phrase(s.name)}?", thing.colour
    if len(scene.sounds) == 2:  # a single one could be named without seeing
        for t in flashes:
            sound = scene.sound_of(t)
            if sound:
                yield "sound_of_flash", f"What sound came with the {t.colour} flash?", sound.name


def phrase(name: str) -> str:
    """How a question names a sound."""
    return f"{name} tone" if name in ("rising", "falling") else name
