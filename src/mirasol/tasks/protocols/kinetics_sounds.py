"""Kinetics-Sounds (Arandjelovic and Zisserman 2017): top-1 over the test split of a list of classes, per class.

There is no official list, and 30 to 36 classes circulate (the paper says 36, S 4). The list is a file beside the
annotations, ``classes.json`` or ``classes.txt``; number and hash of the classes are part of the score, and two scores
compare where both agree.
"""

from __future__ import annotations

from mirasol.tasks.base import class_names, open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="kinetics-sounds",
    about="one class of a list of your choice, by top-1",
    source="Arandjelovic and Zisserman 2017; no official list or script",
    metric="top1",
    split="test",
    judge=open_ended.judge,
    parts=lambda question: (question.answers[0],),
    more=class_names.more,
    closed="classes",
)
