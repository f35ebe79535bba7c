"""The hard world: equal draws, answers hidden from text alone, one chunk per event, chances as declared."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mirasol.data.world.hard import (
    CHUNKS,
    EVENTS,
    FRAMES,
    HARD_COLOURS,
    HARD_FAMILIES,
    HARD_SOUNDS,
    HardScene,
    hard_texts,
    sample_hard,
)
from mirasol.data.world.make import make_world
from mirasol.data.world.questions import Text
from mirasol.data.world.scene import CHUNK_SAMPLES, FRAMES_PER_CHUNK, SOUND_SAMPLES
from mirasol.data.world.sound import samples
from mirasol.data.world.video import encode, render_yuv

CLIPS = 4000


@pytest.fixture(scope="module")
def scenes() -> list[HardScene]:
    return [sample_hard(1, "train", index) for index in range(CLIPS)]


@pytest.fixture(scope="module")
def asked(scenes: list[HardScene]) -> dict[str, list[tuple[HardScene, Text]]]:
    found: dict[str, list[tuple[HardScene, Text]]] = defaultdict(list)
    for scene in scenes:
        for text in hard_texts(scene):
            if text.task == "qa":
                found[text.family].append((scene, text))
    return found


def margin(rate: float, count: int) -> float:
    return 4.5 * math.sqrt(rate * (1 - rate) / count)


def test_equal_seeds_give_equal_pictures_and_sounds() -> None:
    scene = sample_hard(1, "test", 3)
    digest = hashlib.sha256(render_yuv(scene).tobytes() + samples(scene).tobytes()).hexdigest()
    assert digest[:16] == "29444172035731f2"


def test_an_object_is_seen_in_its_chunk_alone(scenes: list[HardScene]) -> None:
    for scene in scenes[:50]:
        frames = render_yuv(scene).reshape(CHUNKS, FRAMES_PER_CHUNK, -1)
        plain = render_yuv(replace(scene, things=()))
        differs = (frames != plain.reshape(frames.shape)).any(axis=(1, 2))
        assert tuple(np.flatnonzero(differs)) == scene.chunks


def test_a_sound_begins_and_ends_in_its_chunk(scenes: list[HardScene]) -> None:
    for sound in itertools.chain.from_iterable(scene.sounds for scene in scenes):
        assert sound.start // CHUNK_SAMPLES == (sound.start + SOUND_SAMPLES - 1) // CHUNK_SAMPLES < CHUNKS


def test_all_ten_sounds_differ_and_are_heard() -> None:
    heard = {}
    for scene in (sample_hard(1, "train", index) for index in range(100)):
        wave = samples(scene)
        assert len(wave) == FRAMES * CHUNK_SAMPLES // FRAMES_PER_CHUNK
        for sound in scene.sounds:
            heard[sound.name] = wave[sound.start : sound.start + SOUND_SAMPLES]
    assert set(heard) == set(HARD_SOUNDS)
    assert min(np.abs(wave.astype(int)).mean() for wave in heard.values()) > 500
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(heard.values(), 2))


@pytest.mark.parametrize("family", HARD_FAMILIES)
def test_words_tell_no_answer(asked: dict[str, list[tuple[HardScene, Text]]], family: str) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, text in asked[family]:
        answers[text.prompt][text.answer] += 1
    chance = HARD_FAMILIES[family].chance
    for prompt, counts in answers.items():
        total = sum(counts.values())
        assert max(counts.values()) / total < chance + margin(chance, total), prompt


@pytest.mark.parametrize("family", ["colour_of_sound", "sound_of_colour"])
def test_one_sense_leaves_four_to_choose_from(asked: dict[str, list[tuple[HardScene, Text]]], family: str) -> None:
    """The place in time of the right one among the four that are seen, or heard, is anybody's guess."""
    which: Counter[int] = Counter()
    for scene, text in asked[family]:
        names = [t.colour for t in scene.things] if family == "colour_of_sound" else [s.name for s in scene.sounds]
        which[names.index(text.answer)] += 1
    total = sum(which.values())
    assert set(which) == set(range(EVENTS))
    assert max(which.values()) / total < 1 / EVENTS + margin(1 / EVENTS, CLIPS)


def test_the_last_of_five_chunks_in_any_order_is_the_best_guess_of_the_class() -> None:
    """Of the chunks L (seen), S (heard), 1 to 3 (both), in every order: how often is one pair the last of each?"""
    pairs: Counter[tuple[str, str]] = Counter()
    orders = list(itertools.permutations("LS123"))
    for order in orders:
        seen = [c for c in order if c != "S"]
        heard = [c for c in order if c != "L"]
        pairs[seen[-1], heard[-1]] += 1
    assert max(pairs.values()) / len(orders) == pytest.approx(HARD_FAMILIES["classify"].shuffled)


def test_a_caption_names_everything_in_order(scenes: list[HardScene]) -> None:
    for scene in scenes[:50]:
        words = hard_texts(scene)[0].answer.replace(",", "").split()
        if not scene.counted:
            ring = [scene.ring] if scene.ring else []
            assert words == [*ring, *(t.colour for t in scene.things), *(s.name for s in scene.sounds)]


def test_every_family_and_class_is_asked(asked: dict[str, list[tuple[HardScene, Text]]]) -> None:
    assert set(asked) == set(HARD_FAMILIES)
    assert {text.answer for _, text in asked["nth_colour"]} == set(HARD_COLOURS)
    assert {text.answer for _, text in asked["nth_sound"]} == set(HARD_SOUNDS)


def test_the_folder_says_what_the_order_of_chunks_is_worth(tmp_path: Path) -> None:
    report = make_world(tmp_path / "data", clips=4, workers=1, variant="hard")
    families = json.loads((tmp_path / "data/families.json").read_text())
    assert report["clips"] == {"train": 4, "val": 4, "test": 12}
    assert {name: family["shuffled"] for name, family in families.items()} == {
        name: family.shuffled for name, family in HARD_FAMILIES.items()
    }
    assert (tmp_path / "data/media/test/000/test-00003.mp4").read_bytes() == encode(sample_hard(1, "test", 3))
