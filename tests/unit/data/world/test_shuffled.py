"""Chance without the order of the chunks: ``shuffled`` of families.json by counting, and signs of the order.

The events of a clip (flashes, sounds, the ring) lie in separate chunks. A guesser that knows them, but not their
order, takes every order as equally likely; this counts its score over all orders and all possible clips.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mirasol.data.world.questions import FAMILIES, QUESTIONS, texts
from mirasol.data.world.scene import (
    CHUNK_SAMPLES,
    CHUNKS,
    FRAMES_PER_CHUNK,
    KINDS,
    SIZE,
    SOUNDS,
    Scene,
    Thing,
    sample_clip,
)
from mirasol.data.world.sound import sound
from mirasol.data.world.video import RING, render_yuv
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import SILENCE, clip_audio

RING_SHARE = Fraction(6, 10)
SOUNDS_OF = {"both": (2, 3), "one": (2, 3), "half": (1,), "alone": (1, 2, 3)}  # each number equally likely
FLASHES_OF = {"both": 2, "one": 1, "half": 2, "silent": 2, "trackless": 2}
ORDERED = tuple(name for name, family in FAMILIES.items() if family.shuffled < 1)
ORDERS = list(itertools.permutations(range(CHUNKS)))
CLIPS = 300


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_clip(1, "train", index) for index in range(CLIPS)]


def drawn() -> Iterator[tuple[Fraction, str, int, bool, dict[str, Fraction]]]:
    """Every way to draw a clip: its share, kind, sounds, ring; and of each family how many are asked on average."""
    for kind, percent in KINDS.items():
        numbers = SOUNDS_OF.get(kind, (0,))
        for count, ring in itertools.product(numbers, (False, True)):
            share = Fraction(percent, 100) / len(numbers) * (RING_SHARE if ring else 1 - RING_SHARE)
            for names in itertools.combinations(SOUNDS, count):
                yield share / math.comb(len(SOUNDS), count), kind, count, ring, asked(kind, names, ring)


def asked(kind: str, names: tuple[str, ...], ring: bool) -> dict[str, Fraction]:
    """How many questions of each family that needs the order are asked of a clip, on average."""
    count, both = len(names), FLASHES_OF.get(kind, 0) == 2
    pitch = int(("rising" in names) != ("falling" in names))
    when = count if kind == "alone" else 0
    flash_of_sound = min(count, 2) if both else 0
    sound_of_flash = FLASHES_OF.get(kind, 0) if count == 2 else 0
    always = pitch + when + flash_of_sound + sound_of_flash + (kind == "count")
    others = {"first_flash": int(both), "first_sound": int(count > 1), "next_sound": max(count - 1, 0)}
    possible = 8 + ring + (count == 1) + sum(others.values())
    share = Fraction(min(possible, max(QUESTIONS - always, 0)), possible)
    found = {name: number * share for name, number in others.items()}
    return found | {"when": Fraction(when), "classify": Fraction(int(count > 0))}


def best(family: str, events: int, ring: bool) -> Fraction:
    """The share of right answers of the best guesser, over all places of ``events`` events and all questions asked.

    He knows the question, which event the question names, and with ``ring`` which of them, if any, is in the first
    chunk: all that he can tell apart is one case, and in each case he gives the answer that is most often right.
    """
    cases: dict[object, Counter[int]] = defaultdict(Counter)
    total = 0
    for chunks in itertools.permutations(range(CHUNKS), events):  # of each event, which have names but no order
        order = sorted(range(events), key=lambda event: chunks[event])
        first = chunks.index(0) if ring and 0 in chunks else None
        for words, answer in questions_of(family, order, chunks):
            cases[words, first][answer] += 1
            total += 1
    return Fraction(sum(max(counts.values()) for counts in cases.values()), total)


def questions_of(family: str, order: list[int], chunks: tuple[int, ...]) -> Iterator[tuple[object, int]]:
    """What a question of the family names, and the event that is its answer."""
    if family == "next_sound":
        yield from itertools.pairwise(order)
    elif family == "when":
        yield from ((chunks[event], event) for event in order)
    else:
        yield "", order[0]


def expected(family: str, rings: tuple[bool, ...]) -> Fraction:
    """The best share of right answers; ``rings``: whether the ring is taken as a sign where there is none, or one."""
    right = total = Fraction(0)
    for share, _, count, ring, questions in drawn():
        events = 2 if family == "first_flash" else count
        if questions[family]:
            total += share * questions[family]
            right += share * questions[family] * best(family, events, rings[ring])
    return right / total


@pytest.mark.parametrize("family", ORDERED)
def test_the_figure_is_that_of_the_best_guess_without_a_sign_of_the_order(family: str) -> None:
    assert float(expected(family, (False, False))) == pytest.approx(FAMILIES[family].shuffled, abs=1e-15)


@pytest.mark.parametrize(
    ("family", "share"),
    [("when", 0.625), ("classify", 0.7223), ("first_sound", 0.6333), ("next_sound", 0.7292), ("first_flash", 0.6445)],
)
def test_the_ring_is_a_sign_of_the_first_chunk(family: str, share: float) -> None:
    """Decision 0046 has the scores that it gives."""
    assert float(expected(family, (False, True))) == pytest.approx(share, abs=5e-5)


def test_questions_are_asked_as_often_as_counted() -> None:
    """The shares that the figures weigh by, against drawn clips: within four standard errors."""
    clips = 6000
    counts: Counter[tuple[str, int]] = Counter()
    for index in range(clips):
        scene = sample_clip(1, "train", index)
        counts.update((text.family, len(scene.sounds)) for text in texts(scene) if text.family in ORDERED)
    mean: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
    for share, _, count, _, questions in drawn():
        for family, number in questions.items():
            mean[family, count] += share * number
    for key, count in counts.items():
        # A clip has up to three questions of a family: the variance is at most three times that of single ones.
        assert abs(count - clips * mean[key]) < 4 * math.sqrt(3 * clips * mean[key]), key


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_depend_on_the_order_of_events_where_the_figure_says_so(family: str, scenes: list[Scene]) -> None:
    def told(scene: Scene) -> set[tuple[str, str]]:
        return {(text.prompt, text.answer) for text in texts(scene) if text.family == family}

    about = [scene for scene in scenes if told(scene)]
    assert about
    changes = any(told(reordered(scene, order)) != told(scene) for scene in about for order in ORDERS)
    assert changes == (FAMILIES[family].shuffled < 1)


def reordered(scene: Scene, order: tuple[int, ...]) -> Scene:
    """The clip with what flashes and sounds in chunk c moved to chunk ``order[c]``."""

    def moved(thing: Thing) -> Thing:
        if thing.flash is None:
            return thing
        chunk, beat = divmod(thing.flash, FRAMES_PER_CHUNK)
        return replace(thing, flash=order[chunk] * FRAMES_PER_CHUNK + beat)

    heard = [replace(s, start=order[s.chunk] * CHUNK_SAMPLES + s.start % CHUNK_SAMPLES) for s in scene.sounds]
    sounds = tuple(sorted(heard, key=lambda s: s.start))
    return replace(scene, things=tuple(map(moved, scene.things)), sounds=sounds)


def test_the_way_of_the_objects_tells_the_order(scenes: list[Scene]) -> None:
    """No bound for one who compares places: within a chunk an object goes the way that it goes from chunk to chunk."""
    for scene in scenes:
        for thing in scene.things:
            axis = 1 if thing.place in ("left", "right") else 0
            chunks = np.array([point[axis] for point in thing.path]).reshape(CHUNKS, FRAMES_PER_CHUNK)
            way = np.sign(chunks[:, -1] - chunks[:, 0])
            assert abs(way.sum()) == CHUNKS
            assert list(np.argsort(chunks.mean(axis=1) * way[0])) == list(range(CHUNKS))


def test_pictures_that_go_on_restore_most_orders(scenes: list[Scene]) -> None:
    """Without the truth: of all orders the one in which the last frame of each chunk is most like the next's first."""
    restored = 0
    for scene in scenes:
        luma = render_yuv(scene)[:, RING : SIZE - RING, RING:-RING].astype(int)
        chunks = luma.reshape(CHUNKS, FRAMES_PER_CHUNK, -1)
        jump = np.abs(chunks[:, None, -1] - chunks[None, :, 0]).sum(axis=-1)
        found = min(ORDERS, key=lambda order: sum(jump[a, b] for a, b in itertools.pairwise(order)))
        restored += found == tuple(range(CHUNKS))
    assert restored / CLIPS > 0.85  # 0.93; by chance 1/24


def test_no_sound_reaches_into_the_next_chunk(scenes: list[Scene]) -> None:
    """Neither its samples nor the windows of its log-mel: a cut edge would tell which chunk came before."""
    spec, checked = ClipSpec(), 0
    for scene in scenes:
        heard = {s.chunk for s in scene.sounds}
        mel = clip_audio(sound(scene), spec, FRAMES_PER_CHUNK / spec.fps, CHUNKS)
        silent = [c for c in range(CHUNKS) if c not in heard]
        assert (mel[silent] <= SILENCE + 1e-6).all()
        checked += any(c - 1 in heard for c in silent)
    assert checked > CLIPS // 4
