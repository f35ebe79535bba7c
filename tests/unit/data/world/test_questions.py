"""The texts of a clip: their forms, and the questions of each kind of clip."""

from __future__ import annotations

from itertools import count

import pytest

from mirasol.data.manifest import AUDIO_PROMPT, CAPTION_PROMPT, CLASSIFY_PROMPT, TASKS
from mirasol.data.world.questions import FAMILIES, QUESTIONS, Text, caption, questions, texts
from mirasol.data.world.scene import KINDS, Scene, sample_clip


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_clip(1, "train", i) for i in range(1500)]


def of_kind(kind: str, sounds: int | None = None) -> Scene:
    return next(
        s
        for s in (sample_clip(1, "train", i) for i in count())
        if s.kind == kind and sounds in (None, len(s.sounds)) and s.ring
    )


def test_a_caption_has_at_most_22_words(scenes: list[Scene]) -> None:
    assert max(len(caption(s).split()) for s in scenes) <= 22


def test_a_caption_tells_what_happens_in_order_of_time() -> None:
    scene = of_kind("both", 3)
    said = caption(scene)
    marks = [f"{t.colour} flashes with {s.name}" if (t := scene.thing_of(s)) else f", {s.name}" for s in scene.sounds]
    assert said.startswith(
        f"large {scene.large.colour} {scene.large.place} {scene.large.verb} {scene.large.motion}, small "
    )
    assert f", {scene.ring} ring, " in said
    assert [said.index(mark) for mark in marks] == sorted(said.index(mark) for mark in marks)


def test_a_caption_counts_beeps() -> None:
    assert caption(of_kind("count", 1)).endswith(", one beep")
    assert caption(of_kind("count", 3)).endswith(", three beeps")


@pytest.mark.parametrize("kind", KINDS)
def test_every_clip_has_a_caption_and_a_track_has_its_sounds(kind: str) -> None:
    scene = of_kind(kind)
    said = texts(scene)
    assert [t.prompt for t in said if t.task == "caption"] == [CAPTION_PROMPT]
    names = " ".join(s.name for s in scene.sounds) or "silence"
    expected = [] if kind == "trackless" else [Text("audio_class", "", AUDIO_PROMPT, names)]
    assert [t for t in said if t.task == "audio_class"] == expected


def test_answers_have_one_or_two_words_and_families_are_known(scenes: list[Scene]) -> None:
    for t in (t for s in scenes for t in texts(s)):
        assert t.task in TASKS
        assert (t.family in FAMILIES) == (t.task == "qa")
        assert t.task != "qa" or len(t.answer.split()) <= 2


def test_a_question_is_asked_once_and_has_one_answer(scenes: list[Scene]) -> None:
    for s in scenes:
        prompts = [prompt for _, prompt, _ in questions(s)]
        assert len(set(prompts)) == len(prompts)


def test_a_clip_is_asked_eight_or_nine_questions_and_its_class(scenes: list[Scene]) -> None:
    numbers = [sum(t.task == "qa" and t.prompt != CLASSIFY_PROMPT for t in texts(s)) for s in scenes]
    assert set(numbers) <= {QUESTIONS - 1, QUESTIONS}


def test_every_family_is_asked_in_at_least_a_tenth_of_the_clips_or_nearly(scenes: list[Scene]) -> None:
    for family in FAMILIES:
        clips = sum(any(t.family == family for t in texts(s)) for s in scenes)
        assert clips > 0.09 * len(scenes), family


@pytest.mark.parametrize("kind", ["silent", "trackless"])
def test_a_clip_without_sound_is_asked_what_is_seen_only(kind: str) -> None:
    assert all(FAMILIES[family].needs == ("video",) for family, _, _ in questions(of_kind(kind)))
    assert not [t for t in texts(of_kind(kind)) if t.prompt == CLASSIFY_PROMPT]


def test_the_class_is_the_large_colour_and_the_first_sound() -> None:
    scene = of_kind("half")
    (answer,) = [t.answer for t in texts(scene) if t.prompt == CLASSIFY_PROMPT]
    assert answer == f"{scene.large.colour} {scene.sounds[0].name}"


def test_both_directions_between_flash_and_sound_are_asked() -> None:
    scene = of_kind("both", 2)
    asked = {(t.prompt, t.answer) for t in texts(scene)}
    for s in scene.sounds:
        thing = scene.thing_of(s)
        assert thing is not None
        tone = " tone" if s.name in ("rising", "falling") else ""
        assert (f"Which colour flashed with the {s.name}{tone}?", thing.colour) in asked
        assert (f"What sound came with the {thing.colour} flash?", s.name) in asked


def test_what_one_modality_gives_away_is_not_asked() -> None:
    """One flash is named by the picture, one sound by the track; what flashes is asked about by its flash."""
    assert "flash_of_sound" not in [family for family, _, _ in questions(of_kind("one"))]
    assert "sound_of_flash" not in [family for family, _, _ in questions(of_kind("half"))]
    assert "when" not in [family for family, _, _ in questions(of_kind("both"))]


def test_the_next_sound_is_the_next_one() -> None:
    scene = of_kind("alone", 3)
    answers = [answer for family, _, answer in questions(scene) if family == "next_sound"]
    assert answers == [s.name for s in scene.sounds[1:]]
