"""What needs what: whether a question family falls when sound, picture or the order of time is taken from its clips."""

from __future__ import annotations

from typing import NamedTuple

WITHIN = 0.02  # what a family may move by that does not need what was taken away
FALLS, STAYS, NEITHER = "falls to chance", f"stays within {100 * WITHIN:.0f} points", "neither"


class Share(NamedTuple):
    """A family's share of right answers under a condition."""

    mean: float
    low: float  # where its 95 % interval begins
    chance: float | None  # the best that can be done there by guessing, where that is known


class Finding(NamedTuple):
    """What became of a family: ``FALLS``, ``STAYS`` or ``NEITHER``; ``None`` twice where it is not judged."""

    found: str | None
    holds: bool | None  # whether that is as it must be


def judge(full: Share, left: Share) -> Finding:
    """What becomes of a family that scores ``full``, and ``left`` without something (issue 5, "matters").

    A family needs what was taken if even the best guesser errs without it: ``left.chance`` is below 1. It must then
    fall to that chance: its interval holds it or lies below. Any other must stay within ``WITHIN``. A family
    that the model answers no better than chance proves nothing, nor does one whose chance is not known.
    """
    if full.chance is None or left.chance is None or full.low <= full.chance:
        return Finding(None, None)
    needed = left.chance < 1
    if needed and left.low <= left.chance:
        return Finding(FALLS, True)
    stays = abs(left.mean - full.mean) <= WITHIN
    return Finding(STAYS if stays else NEITHER, stays and not needed)
