"""NExT-QA, open-ended (Xiao et al. 2021): WUPS at threshold 0, over all, over C, T and D, and per type, TP in TN.

Source of the score: https://github.com/doc-doc/NExT-OE, ``eval_oe.py`` and ``metrics.py``. Words are lemmatised and
those of the set's ``stopwords.txt`` left out. A word of one text gets the best Wu-Palmer similarity to a word of the
other, first senses of WordNet 3.0 compared, 1 for the same word; the similarities are multiplied, a word that is
like none left out; the smaller of the two directions counts, and of two references the better. Types DC and DB
compare the words exactly.

One thing differs from the script. It lemmatises by a statistical tagger's part of speech, which comes with NLTK and
changes with its version; here the shortest base form that WordNet has for a word counts. So these figures compare
with each other, and with those of the script only nearly.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.protocol import Asked, Credit, Material, Protocol, mean
from mirasol.tasks.protocols.nextqa_mc import parts
from mirasol.tasks.scoring.predictions import Prediction
from mirasol.tasks.scoring.wordnet import WordNet

EXACT = ("DC", "DB")  # counting, and yes or no: near is not right
STOPWORDS = "stopwords.txt"
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


class Wups:
    """WUPS at threshold 0 of texts.

    Args:
        wordnet: folder of the database files.
        stopwords: words that do not count.
    """

    def __init__(self, wordnet: Path, stopwords: Iterable[str]) -> None:
        self._wordnet = WordNet(wordnet)
        self._stopwords = frozenset(stopwords)
        self.words = functools.cache(self._words)
        self._alike = functools.cache(self._similarity)

    def __call__(self, predicted: str, reference: str) -> float:
        """The smaller of both directions, 0 to 1."""
        said, meant = self.words(predicted), self.words(reference)
        return min(self._directed(said, meant), self._directed(meant, said))

    def _words(self, text: str) -> tuple[str, ...]:
        """The base forms of the words of ``text`` that count."""
        words = (w for w in _WORD.findall(text.lower()) if w not in self._stopwords)
        return tuple(base for w in words if (base := self._wordnet.base(w)) not in self._stopwords)

    def _directed(self, words: Sequence[str], others: Sequence[str]) -> float:
        found = (1.0 if w in others else max((self._alike(w, o) for o in others), default=0.0) for w in words)
        best = [value for value in found if value]
        product = 1.0
        for value in best:
            product *= value
        return product if best else 0.0

    def _similarity(self, word: str, other: str) -> float:
        first, second = self._wordnet.first(word), self._wordnet.first(other)
        return self._wordnet.wup(first, second) if first and second else 0.0


def judge(material: Material) -> Credit:
    """WUPS@0, the better of the references; DC and DB 1 or 0.

    Raises:
        MirasolError: WordNet's files or the set's stop words are not there.
    """
    path = next((folder / STOPWORDS for folder in material.folders if (folder / STOPWORDS).is_file()), None)
    if path is None:
        raise MirasolError(
            f"no {STOPWORDS} in {' or '.join(str(folder) for folder in material.folders) or 'any folder'}: it lies "
            "beside the annotations of NExT-OE, and WUPS leaves out its words: copy it there"
        )
    wups = Wups(material.wordnet, path.read_text(encoding="utf-8").split())

    def credit(question: Example, prediction: Prediction) -> float:
        if prediction.predicted is None:
            return 0.0
        if question.family in EXACT:
            words = wups.words(prediction.predicted)
            return float(any(words == wups.words(answer) for answer in question.answers))
        return max(wups(prediction.predicted, answer) for answer in question.answers)

    return credit


def more(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """Exact match as on the other sets, ``exact_match``, with what stands beside it there."""
    right = open_ended.judge(material)
    match = mean([right(r.question, r.prediction) for r in rows])
    return {"exact_match": match} | open_ended.more(rows, material)


PROTOCOL = Protocol(
    name="nextqa-oe",
    about="open answers to why, how and when, by WUPS@0",
    source="Xiao et al. 2021, https://github.com/doc-doc/NExT-OE eval_oe.py",
    metric="wups",
    split="test",
    judge=judge,
    parts=parts,
    more=more,
    published={"train": 37_523, "val": 5_343, "test": 9_178},
)
