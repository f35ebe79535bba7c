"""Augmentation: each kind changes only its part, is off by default, and follows from seed and number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mirasol.data.loading.augment import (
    NUMBERS,
    OFF,
    Augmentation,
    augmented,
    draw_share,
    draw_start,
    masked,
    mixable,
    mixed,
)
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.view import starting_later
from mirasol.media.log_mel import BLACK_Y, SILENCE

T, K, S, A, M = 4, 2, 16, 6, 8
ALL = Augmentation(crop=0.3, flip=0.5, spec_time=0.4, spec_mel=0.4, mixup=0.4, jitter=2)


def clip(seed: int = 0, **parts: Any) -> Decoded:
    """A clip of noise with all its chunks; ``seen`` and ``heard`` say how many have a picture and a sound."""
    draws = np.random.default_rng(seed)
    seen, heard = parts.get("seen", T), parts.get("heard", T)
    video = draws.integers(0, 256, (T, K, S * 3 // 2, S), np.uint8)
    audio = draws.random((T, A, M), np.float32)
    return Decoded(video, audio, np.arange(T) < seen, np.arange(T) < heard)


def numbers(seed: int = 0) -> Any:
    return np.random.default_rng(seed).random(NUMBERS)


def equal(one: Decoded, two: Decoded) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))


def test_nothing_changes_where_all_is_off() -> None:
    assert equal(augmented(clip(), OFF, numbers()), clip())


def test_the_clip_given_is_left_alone() -> None:
    given = clip()
    augmented(given, ALL, numbers())
    assert equal(given, clip())


def test_what_happens_to_the_picture_does_not_move_the_masks_of_the_sound_and_vice_versa() -> None:
    picture, sound = Augmentation(crop=0.3, flip=1.0), Augmentation(spec_time=0.4, spec_mel=0.4)
    both = augmented(clip(), Augmentation(crop=0.3, flip=1.0, spec_time=0.4, spec_mel=0.4), numbers())
    assert np.array_equal(both.video, augmented(clip(), picture, numbers()).video)
    assert np.array_equal(both.audio, augmented(clip(), sound, numbers()).audio)
    assert not np.array_equal(both.video, clip().video) and not np.array_equal(both.audio, clip().audio)


@pytest.mark.parametrize("by", [0, 1, 3])
def test_a_clip_that_begins_later_keeps_its_chunks_together(by: int) -> None:
    given, found = clip(), starting_later(clip(), by)
    assert np.array_equal(found.video[: T - by], given.video[by:])
    assert np.array_equal(found.audio[: T - by], given.audio[by:])
    assert found.video_present.tolist() == found.audio_present.tolist() == [True] * (T - by) + [False] * by
    assert (found.video[T - by :, :, :S] == BLACK_Y).all() and (found.audio[T - by :] == SILENCE).all()


@pytest.mark.parametrize(("seen", "heard", "by"), [(4, 4, 3), (4, 2, 1), (1, 4, 0), (0, 3, 2), (2, 0, 1)])
def test_jitter_leaves_a_chunk_of_all_that_is_there(seen: int, heard: int, by: int) -> None:
    found = starting_later(clip(seen=seen, heard=heard), 9)
    assert int(found.video_present.sum()) == max(0, seen - by)
    assert int(found.audio_present.sum()) == max(0, heard - by)


def test_jitter_takes_every_number_of_chunks_alike() -> None:
    how = Augmentation(jitter=2)
    left = [int(starting_later(clip(), draw_start(how, numbers(n))).video_present.sum()) for n in range(300)]
    counts = [left.count(T - by) for by in range(3)]
    assert sum(counts) == 300 and min(counts) > 70


def test_a_mask_hides_one_stretch_of_time_across_chunks() -> None:
    audio = clip().audio
    found = masked(audio, np.ones(T, bool), Augmentation(spec_time=0.5), np.array([0.99, 0.5, 0.9, 0.9]))
    hidden = (found != audio).reshape(-1, M)
    assert (hidden.all(1) == hidden.any(1)).all() and hidden.all(1).sum() == T * A // 2
    assert np.abs(np.diff(hidden.all(1).astype(int))).sum() <= 2
    assert np.unique(found.reshape(-1, M)[hidden.all(1)]).tolist() == [np.float32(audio.mean(dtype=np.float64))]


def test_a_mask_hides_one_band_of_mels() -> None:
    audio = clip().audio
    found = masked(audio, np.ones(T, bool), Augmentation(spec_mel=0.5), np.array([0.9, 0.9, 0.99, 0.999]))
    hidden = (found != audio).reshape(-1, M)
    assert np.flatnonzero(hidden.all(0)).tolist() == [4, 5, 6, 7] and hidden.any(0).sum() == 4


def test_masks_are_never_wider_than_said() -> None:
    how = Augmentation(spec_time=0.25, spec_mel=0.25)
    for row in np.random.default_rng(0).random((200, 4)):
        hidden = (masked(clip().audio, np.ones(T, bool), how, row) != clip().audio).reshape(-1, M)
        assert hidden.all(1).sum() <= T * A // 4 and hidden.all(0).sum() <= M // 4


def test_chunks_without_sound_do_not_count_in_the_mean() -> None:
    audio = clip().audio.copy()
    audio[2:] = 100.0
    found = masked(audio, np.arange(T) < 2, Augmentation(spec_time=0.9), np.array([0.99, 0.0, 0.0, 0.0]))
    assert found[0, 0, 0] == np.float32(audio[:2].mean(dtype=np.float64))


def test_a_mixture_is_between_the_two() -> None:
    one, two = clip(1), clip(2)
    found = mixed(one, two, 0.25)
    assert np.abs(found.video - (0.25 * one.video + 0.75 * two.video)).max() <= 0.5
    assert np.allclose(found.audio, 0.25 * one.audio + 0.75 * two.audio, atol=1e-6)


@pytest.mark.parametrize(("share", "which"), [(1.0, 1), (0.0, 2)])
def test_a_mixture_of_one_clip_alone_is_that_clip(share: float, which: int) -> None:
    assert equal(mixed(clip(1), clip(2), share), clip(which))


def test_only_clips_with_the_same_chunks_are_mixed() -> None:
    assert (
        mixable(clip(1), clip(2)) and not mixable(clip(1), clip(2, heard=3)) and not mixable(clip(1), clip(2, seen=0))
    )


def test_shares_are_those_of_the_beta_distribution() -> None:
    draws = np.random.default_rng(0)
    shares = np.array([draw_share(0.4, draws) for _ in range(4000)])
    assert np.all(shares * 256 == np.round(shares * 256))
    assert abs(shares.mean() - 0.5) < 0.02 and abs(shares.var() - 1 / (4 * 1.8)) < 0.01
