"""MSVD-QA (Xu et al. 2017): exact match over all 13,157 test questions, and by the first word.

Source of the score: https://github.com/xudejing/video-question-answering (accuracy over every question of the split).
"""

from __future__ import annotations

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="msvd-qa",
    about="open answers to questions about short YouTube clips, by exact match",
    source="Xu et al. 2017, https://github.com/xudejing/video-question-answering",
    metric="exact_match",
    split="test",
    judge=open_ended.judge,
    parts=open_ended.family,
    more=open_ended.more,
    published={"train": 30_933, "val": 6_415, "test": 13_157},
)
