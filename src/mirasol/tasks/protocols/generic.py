"""Your own questions: exact match over all and per family, as on the published sets of questions."""

from __future__ import annotations

from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="generic",
    about="open answers to the questions of any data folder, by exact match",
    source="Mirasol3B, P 4",
    metric="exact_match",
    split="test",
    judge=open_ended.judge,
    parts=open_ended.family,
    more=open_ended.more,
)
