"""MSRVTT-QA (Xu et al. 2017): exact match over all 72,821 test questions, and by the first word.

Mirasol3B reports it open-ended (P Table 1). Source of the score: https://github.com/xudejing/video-question-answering
(accuracy over every question of the split).
"""

from __future__ import annotations

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="msrvtt-qa",
    about="open answers to questions about short web clips, by exact match",
    source="Xu et al. 2017, https://github.com/xudejing/video-question-answering",
    metric="exact_match",
    split="test",
    judge=open_ended.judge,
    parts=open_ended.family,
    more=open_ended.more,
    published={"train": 158_581, "val": 12_278, "test": 72_821},
)
