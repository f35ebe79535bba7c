"""The questions of training: whether a new one is like them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from mirasol.tokenizer import normalise

LEAST = 0.4  # similarity below which a question counts as foreign (decision 0078)
WORD = re.compile(r"\w+")


class LearntPrompts:
    """The prompts of a contract, ready for comparison.

    The similarity of a question to a prompt is the Dice coefficient of their sets of words and neighbouring pairs of
    words, upper case and punctuation left out, with a mark at each end: 2 * common / (number of one + of the other).
    The nearest prompt decides: 1.0 is a learnt question, other values in a learnt template mostly reach 0.5, and a
    question below ``LEAST`` is unlike any that was learnt. It says nothing about whether the answer is right.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self._prompts = list(prompts)
        self._exact = {normalise(prompt) for prompt in self._prompts}
        self._sizes: list[int] = []
        self._places: dict[tuple[str, ...], list[int]] = {}  # gram -> prompts that hold it
        for place, prompt in enumerate(self._prompts):
            found = grams(prompt)
            self._sizes.append(len(found))
            for gram in found:
                self._places.setdefault(gram, []).append(place)

    def nearest(self, question: str) -> tuple[float, str]:
        """Similarity in [0, 1] to the nearest prompt, and that prompt, "" if none has a word in common."""
        if (exact := normalise(question)) in self._exact:
            return 1.0, exact
        mine = grams(question)
        common: dict[int, int] = {}
        for gram in mine:
            for place in self._places.get(gram, ()):
                common[place] = common.get(place, 0) + 1
        scores = {place: 2 * count / (len(mine) + self._sizes[place]) for place, count in common.items()}
        if not scores:
            return 0.0, ""
        best = max(scores, key=lambda place: (scores[place], -place))
        return scores[best], self._prompts[best]


def grams(text: str) -> set[tuple[str, ...]]:
    """Words of ``text`` and pairs of neighbours; the ends count as neighbours."""
    words = WORD.findall(normalise(text).casefold())
    marked = ["<", *words, ">"]
    return {(word,) for word in words} | (set(itertools.pairwise(marked)) if words else set())
