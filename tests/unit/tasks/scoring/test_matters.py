"""When a family counts as fallen to chance, as left where it was, or as neither; and when that is as it must be."""

from __future__ import annotations

import pytest

from mirasol.tasks.scoring.matters import FALLS, NEITHER, STAYS, Share, judge

FULL = Share(0.95, 0.93, 0.25)


@pytest.mark.parametrize(
    ("left", "found", "holds"),
    [
        (Share(0.30, 0.24, 0.25), FALLS, True),  # the interval holds chance
        (Share(0.10, 0.05, 0.25), FALLS, True),  # or lies below
        (Share(0.50, 0.45, 0.25), NEITHER, False),
        (Share(0.94, 0.92, 0.25), STAYS, False),  # it does without what it should need
    ],
)
def test_what_needs_it_must_fall(left: Share, found: str, holds: bool) -> None:
    assert judge(FULL, left) == (found, holds)


@pytest.mark.parametrize(
    ("left", "found", "holds"),
    [
        (Share(0.935, 0.90, 1.0), STAYS, True),
        (Share(0.969, 0.95, 1.0), STAYS, True),  # up as well as down
        (Share(0.925, 0.90, 1.0), NEITHER, False),
        (Share(0.30, 0.24, 1.0), NEITHER, False),
    ],
)
def test_what_does_not_need_it_must_stay(left: Share, found: str, holds: bool) -> None:
    assert judge(FULL, left) == (found, holds)


@pytest.mark.parametrize(
    ("full", "left"),
    [
        (Share(0.27, 0.24, 0.25), Share(0.25, 0.2, 0.25)),  # no better than chance to begin with
        (FULL, Share(0.2, 0.1, None)),
        (Share(0.95, 0.93, None), Share(0.2, 0.1, 0.25)),
    ],
)
def test_what_proves_nothing_is_not_judged(full: Share, left: Share) -> None:
    assert judge(full, left) == (None, None)
