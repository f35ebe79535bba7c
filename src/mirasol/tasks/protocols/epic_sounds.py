"""EPIC-SOUNDS (Huh et al. 2023): top-1 over the 8,035 segments of the validation split, 44 classes, per class.

Source of the score: the paper of the set, and https://github.com/epic-kitchens/epic-sounds-annotations (top-1, top-5
and mean accuracy of classes). The labels of the test split lie on a server; published figures, Mirasol3B's among
them, are of validation. Top-5 ranks the closed set, which generation alone cannot.
"""

from __future__ import annotations

from mirasol.tasks.base import class_names, open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="epic-sounds",
    about="one of 44 classes of kitchen sounds, by top-1",
    source="Huh et al. 2023, https://github.com/epic-kitchens/epic-sounds-annotations",
    metric="top1",
    split="validation",
    judge=open_ended.judge,
    parts=lambda question: (question.answers[0],),
    more=class_names.more,
    published={"validation": 8_035},
    classes=44,
    closed="classes",
)
