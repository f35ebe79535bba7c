"""The truth of a clip: equal seeds, separate splits, and everything where it can be seen and heard."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.world.make import render_yuv, sample_clip, samples
from mirasol.data.world.scene import (
    CHUNK_SAMPLES,
    COLOURS,
    FLASH_FRAMES,
    FRAMES_PER_CHUNK,
    KINDS,
    NOVEL_PAIRS,
    RADIUS,
    SIZE,
    SOUND_SAMPLES,
    SPLITS,
    Draw,
    Scene,
)


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {split: [sample_clip(1, split, i) for i in range(2000)] for split in SPLITS}


def test_the_raw_stream_gives_these_numbers_for_ever() -> None:
    draw = Draw(1, 0, 0)
    assert [draw.below(1000) for _ in range(8)] == GOLDEN_DRAWS


def test_equal_seed_split_and_index_give_equal_scenes() -> None:
    assert sample_clip(3, "val", 7) == sample_clip(3, "val", 7)


@pytest.mark.parametrize("other", [(2, "train", 5), (1, "test", 5), (1, "train", 6)])
def test_another_seed_split_or_index_gives_another_scene(other: tuple[int, str, int]) -> None:
    def stuff(scene: Scene) -> tuple[object, ...]:
        return scene.large, scene.small, scene.sounds, scene.asked

    assert stuff(sample_clip(*other)) != stuff(sample_clip(1, "train", 5))


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(MirasolError, match="'dev' is not one of train, val, test"):
        sample_clip(1, "dev", 0)


def test_no_two_clips_of_any_splits_are_equal(scenes: dict[str, list[Scene]]) -> None:
    some = [s for split in SPLITS for s in scenes[split][:500]]
    hashes = {hashlib.sha1(render_yuv(s).tobytes() + samples(s).tobytes()).digest() for s in some}
    assert len(hashes) == len(some)


def test_the_shares_of_the_kinds_sum_to_100_and_hold(scenes: dict[str, list[Scene]]) -> None:
    assert sum(KINDS.values()) == 100
    found = Counter(s.kind for s in scenes["train"])
    assert all(abs(found[kind] / 20 - share) < 4 for kind, share in KINDS.items())


def test_novel_pairs_are_seen_in_a_quarter_of_test_and_nowhere_else(scenes: dict[str, list[Scene]]) -> None:
    pairs = [frozenset(pair) for pair in NOVEL_PAIRS]
    for split in SPLITS:
        novel = [s for s in scenes[split] if frozenset((s.large.colour, s.small.colour)) in pairs]
        assert [s for s in scenes[split] if s.novel] == novel
        assert len(novel) == (len(scenes[split]) // 4 if split == "test" else 0)
        assert all(s.group.startswith("novel-") == s.novel for s in scenes[split])


def test_each_colour_has_one_novel_partner() -> None:
    assert sorted(c for pair in NOVEL_PAIRS for c in pair) == sorted(COLOURS)


def test_a_clip_has_three_different_colours_at_most_one_each(scenes: dict[str, list[Scene]]) -> None:
    for s in scenes["train"]:
        colours = [s.large.colour, s.small.colour] + ([s.ring] if s.ring else [])
        assert len(set(colours)) == len(colours)


def test_most_of_an_object_is_in_the_picture_in_the_chunk_of_its_flash(scenes: dict[str, list[Scene]]) -> None:
    for s in scenes["train"]:
        for t in s.flashes:
            first = (t.flash or 0) // FRAMES_PER_CHUNK * FRAMES_PER_CHUNK
            centres = [c for place in t.path[first : first + FRAMES_PER_CHUNK] for c in place]
            assert min(centres) >= RADIUS[t.size] // 3 and max(centres) < SIZE - RADIUS[t.size] // 3, (s.name, t)


def test_flashes_stay_in_their_chunk_and_leave_its_hue_to_be_seen(scenes: dict[str, list[Scene]]) -> None:
    for s in scenes["train"]:
        for t in s.flashes:
            assert (t.flash or 0) % FRAMES_PER_CHUNK + FLASH_FRAMES < FRAMES_PER_CHUNK


def test_objects_keep_to_their_halves(scenes: dict[str, list[Scene]]) -> None:
    for s in scenes["train"]:
        for t in s.things:
            across = [x if t.place in ("left", "right") else y for x, y in t.path]
            low = SIZE // 2 if t.place in ("right", "bottom") else 0
            assert low + RADIUS[t.size] <= min(across) and max(across) < low + SIZE // 2 - RADIUS[t.size]


def test_objects_move_the_way_they_say(scenes: dict[str, list[Scene]]) -> None:
    signs = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    for s in scenes["train"]:
        for t in s.things:
            (x0, y0), (x1, y1) = t.path[0], t.path[-1]
            moved = ((x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0))
            assert moved == signs[t.motion]


def test_objects_enter_and_leave(scenes: dict[str, list[Scene]]) -> None:
    def outside(t_path: tuple[int, int], radius: int) -> bool:
        return min(t_path) < -radius or max(t_path) >= SIZE + radius

    for s in scenes["train"]:
        for t in s.things:
            ends = outside(t.path[0], RADIUS[t.size]), outside(t.path[-1], RADIUS[t.size])
            assert ends == {"moves": (False, False), "enters": (True, False), "leaves": (False, True)}[t.verb]
    assert {t.verb for s in scenes["train"] for t in s.things} == {"moves", "enters", "leaves"}


def test_sounds_stay_in_their_chunk_one_each(scenes: dict[str, list[Scene]]) -> None:
    for s in scenes["train"]:
        assert all((e.start + SOUND_SAMPLES - 1) // CHUNK_SAMPLES == e.chunk for e in s.sounds)
        assert len({e.chunk for e in s.sounds}) == len(s.sounds)


def test_each_kind_has_its_flashes_and_sounds(scenes: dict[str, list[Scene]]) -> None:
    def shape(s: Scene) -> tuple[int, int, int]:
        return len(s.flashes), len(s.sounds), sum(s.sound_of(t) is not None for t in s.flashes)

    expected = {
        "both": {(2, 2, 2), (2, 3, 2)},
        "one": {(1, 2, 1), (1, 3, 1)},
        "half": {(2, 1, 1)},
        "count": {(0, n, 0) for n in (1, 2, 3, 4)},
        "alone": {(0, n, 0) for n in (1, 2, 3)},
        "silent": {(2, 0, 0)},
        "trackless": {(2, 0, 0)},
    }
    found = {kind: {shape(s) for s in scenes["train"] if s.kind == kind} for kind in KINDS}
    assert found == expected


GOLDEN_DRAWS = [719, 645, 7, 274, 471, 876, 861, 855]
