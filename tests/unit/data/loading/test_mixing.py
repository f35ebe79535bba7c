"""Several sets in one order: exact proportions, each set in its own order, resumable at any sample."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from support.loading import Make, digest, keys

from mirasol.data.loading.mixing import Mixture, mix


@pytest.mark.parametrize("weights", [(1,), (3, 1), (5, 2, 1)])
def test_each_window_has_exactly_the_weights(weights: tuple[int, ...]) -> None:
    window, mixture = sum(weights), Mixture(weights, seed=3)
    for low in range(0, 20 * window, window):
        found = Counter(mixture.place(low + i)[0] for i in range(window))
        assert [found[i] for i in range(len(weights))] == list(weights)


def test_each_set_goes_through_its_own_numbers_in_order() -> None:
    places = [Mixture((3, 2), seed=1).place(sample) for sample in range(200)]
    for which in (0, 1):
        numbers = [number for i, number in places if i == which]
        assert numbers == list(range(len(numbers)))


def test_the_order_within_windows_is_drawn_anew() -> None:
    mixture = Mixture((4, 4), seed=1)
    windows = {tuple(mixture.place(8 * w + i)[0] for i in range(8)) for w in range(20)}
    assert len(windows) > 10


@pytest.mark.parametrize("weights", [(), (0, 1), (0.5, 1), (-1,)])
def test_other_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="expected whole numbers of at least 1"):
        Mixture(weights, seed=1)


def test_a_mixture_resumes_and_ranks_share_it(loader: Make) -> None:
    def both(**changes: Any) -> Any:
        return mix([loader(**changes), loader(seed=6, **changes)], (3, 1), seed=2)

    whole = itertools.islice(iter(both(mute=0.3)), 3, None)
    assert digest(whole, 4) == digest(both(mute=0.3, start_sample=9), 4)
    ranks = [keys(both(batch_size=2, world=2, rank=rank), 5) for rank in (0, 1)]
    assert [k for turn in zip(*ranks, strict=True) for k in turn] == keys(both(batch_size=4), 5)


def test_sets_that_make_no_batch_are_refused(loader: Make) -> None:
    with pytest.raises(ValueError, match=r"sets with different tasks make no batch: \('qa',\) and \('caption',\)"):
        mix([loader(), loader(tasks=("caption",))], (1, 1), seed=1)
    with pytest.raises(ValueError, match="2 sets and 3 weights"):
        mix([loader(), loader()], (1, 1, 1), seed=1)
