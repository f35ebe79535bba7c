"""The one normaliser of answers, used on both sides of every comparison.

Public question sets disagree about case, articles and final dots even between their own splits, so a score
without a pinned normaliser cannot be compared with another. Any change here is a new ``VERSION``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

VERSION = 1
ARTICLES = frozenset({"a", "an", "the"})
# Signs that carry meaning stay: "-5", "c#", "50%" and a leading ".5" are answers of their own.
_OPENING = "\"'`´“”„‘’«»([{<¿¡…"
_CLOSING = "\"'`´“”„‘’«»)]}>.,;:!?…"


def normalise(text: str) -> str:
    """Lower case, NFKC, no punctuation at the ends of words, no articles, single spaces.

    A text of articles alone keeps them ("A" is an answer where letters are classes). Idempotent.
    """
    words = (word.lstrip(_OPENING).rstrip(_CLOSING) for word in unicodedata.normalize("NFKC", text).lower().split())
    kept = [word for word in words if word]
    return " ".join([word for word in kept if word not in ARTICLES] or kept)


def exact_match(predicted: str | None, answers: Iterable[str]) -> bool:
    """Whether the normalised prediction equals one of the normalised answers; ``None`` (no answer) is wrong."""
    return predicted is not None and normalise(predicted) in {normalise(answer) for answer in answers}


def exact_match_raw(predicted: str | None, answers: Iterable[str]) -> bool:
    """The same, character by character."""
    return predicted is not None and predicted in set(answers)
