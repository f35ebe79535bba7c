"""The conditions under which questions are asked: the clip unchanged, and with one thing taken away."""

from __future__ import annotations

from enum import StrEnum


class Condition(StrEnum):
    """A change to a clip at evaluation. The values are the keys of reports and predictions."""

    unchanged = "unchanged"
    muted = "muted"  # digital silence
    blanked = "blanked"  # black frames
    swapped = "swapped"  # the sound of a clip of another group
    shuffled = "shuffled"  # the chunks in another order
