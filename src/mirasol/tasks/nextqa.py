"""NExT-QA: why, how and when questions on videos of everyday life (Xiao et al. 2021), two tasks on the same videos.

Annotations: ``{train,val,test}.csv`` with the columns video, frame_count, width, height, question, answer, qid, type.
Multiple choice also has a0 to a4, and ``answer`` is the number of the right one: 34,132 / 4,996 / 8,564 questions; its
options go to ``Example.options``, in their order, and the right one is the first of the answers. Open-ended has a text
answer: 37,523 / 5,343 / 9,178, and a second reference for some of the test split in
``add_reference_answer_test.json`` {video: {qid: answer}}. Types are the family: causal CW, CH; temporal TN, TC, TP;
descriptive DC, DL, DO, and DB (yes or no) in the open-ended task alone. The videos are 3,870 / 570 / 1,000.
Media: ``map_vid_vidorID.json`` has the folders of VidOR, ``1101/3397265196``; files by the bare id are found too.

Score of multiple choice (``eval_mc.py``): accuracy over all, over C, T and D, and per type, TP counted in TN. The
answer is the text of an option. In two questions of the test split the right text occurs twice, and either counts
(decision 0030): at most 0.01 points. The paper calls its NExT-QA task open-ended, but its Table 3 compares with
figures of this one.

Score of the open-ended task (``eval_oe.py`` and ``metrics.py``): WUPS at threshold 0, the better of the references,
over the same groups. Words are lemmatised and those of the set's ``stopwords.txt`` left out. A word of one text gets
the best Wu-Palmer similarity to a word of the other, first senses of WordNet 3.0 compared, 1 for the same word; the
similarities are multiplied, a word without any is left out; the smaller of the two directions counts. Types DC and DB
compare the words exactly. One difference from the script: it lemmatises by the part of speech of a statistical tagger
that comes with NLTK and changes with its version; here the shortest base form that WordNet has for a word counts. So
these figures compare with each other, and only nearly with those of the script.

Known fault: three questions of the open-ended train split repeat the video and qid of another (``#2`` follows their
ids).

Source: https://github.com/doc-doc/NExT-QA and NExT-OE
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.tasks.base import open_ended
from mirasol.tasks.base.annotations import Annotations, Record, RowError, read_json
from mirasol.tasks.base.importer import Adapter, Row
from mirasol.tasks.base.protocol import Asked, Credit, Material, Protocol, mean
from mirasol.tasks.scoring.normalise import normalise
from mirasol.tasks.scoring.predictions import Prediction
from mirasol.tasks.scoring.wordnet import WordNet

TYPES = {name: name for name in ("CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO", "DB")}
EXACT = ("DC", "DB")  # counting, and yes or no: near is not right
COLUMNS = ("video", "question", "answer", "qid", "type")
OPTIONS = ("a0", "a1", "a2", "a3", "a4")
FOLDERS, REFERENCES, STOPWORDS = "map_vid_vidorID.json", "add_reference_answer_test.json", "stopwords.txt"
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


def read_choice(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    def answers(record: Record) -> dict[str, Any]:
        options = tuple(record.text(name) for name in OPTIONS)
        right = record.integer("answer")
        if right >= len(options):
            raise record.wrong("answer", "the number of an option, 0 to 4", right)
        return {"answers": (options[right],), "options": options}

    return _rows(annotations, path, (*COLUMNS, *OPTIONS), answers)


def read_open(annotations: Annotations, path: Path, split: str) -> Iterator[Row]:
    more = _object(annotations, REFERENCES) if split == "test" else {}

    def answers(record: Record) -> dict[str, Any]:
        if OPTIONS[0] in record.values:
            raise RowError(
                f"{record.where}: a column {OPTIONS[0]!r}: this is the file of multiple choice, whose answers are "
                "numbers of options; those of the open-ended task lie in github.com/doc-doc/NExT-OE"
            )
        first = record.text("answer")
        second = more.get(record.text("video"), {}).get(record.text("qid"), first)
        return {"answers": tuple(dict.fromkeys((first, second)))}

    return _rows(annotations, path, COLUMNS, answers)


def _rows(
    annotations: Annotations, path: Path, columns: tuple[str, ...], answers: Callable[[Record], dict[str, Any]]
) -> Iterator[Row]:
    folders = _object(annotations, FOLDERS)

    def row(record: Record) -> Row:
        video = record.text("video")
        return Row(
            where=record.where, id=f"{video}_{record.integer('qid')}",
            names={"video": video, "vidor": folders.get(video, video)}, group=video, prompt=record.text("question"),
            family=record.one_of("type", TYPES), **answers(record),
        )  # fmt: skip

    return annotations.rows(annotations.csv(path, columns), row)


def _object(annotations: Annotations, name: str) -> dict[str, Any]:
    """The object of an optional JSON file."""
    path = annotations.find(name)
    value = read_json(path) if path else {}
    if not isinstance(value, dict):
        raise MirasolError(f"{path}: expected an object by video, got {type(value).__name__}")
    return value


def parts(question: Example) -> tuple[str, ...]:
    """The type and its first letter: causal, temporal or descriptive."""
    kind = "TN" if question.family == "TP" else question.family
    return kind[0], kind


def choice(predicted: str | None, options: Sequence[str]) -> str | None:
    """The option equal to ``predicted``: by its characters, or else the only one that is equal when normalised."""
    if predicted is None or predicted in options:
        return predicted
    alike = [option for option in dict.fromkeys(options) if normalise(option) == normalise(predicted)]
    return alike[0] if len(alike) == 1 else None


def judge_choice(material: Material) -> Credit:
    """1 where the option chosen is the right one."""

    def credit(question: Example, prediction: Prediction) -> float:
        return float(choice(prediction.predicted, question.options) == question.answers[0])

    return credit


def more_of_choice(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """``not_an_option``: answers that match none of the five, and so are wrong."""
    answered = [r for r in rows if r.prediction.predicted is not None]
    return {"not_an_option": sum(choice(r.prediction.predicted, r.question.options) is None for r in answered)}


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


def judge_open(material: Material) -> Credit:
    """WUPS@0, the better of the references; DC and DB 1 or 0.

    Raises:
        MirasolError: WordNet's files or the set's stop words are missing.
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


def more_of_open(rows: Sequence[Asked], material: Material) -> dict[str, Any]:
    """Exact match as on the other sets, ``exact_match``, with the figures that belong to it."""
    right = open_ended.judge(material)
    match = mean([right(r.question, r.prediction) for r in rows])
    return {"exact_match": match} | open_ended.more(rows, material)


def _adapter(name: str, about: str, read: Callable[[Annotations, Path, str], Iterator[Row]]) -> Adapter:
    return Adapter(
        name=name,
        about=about,
        licence="MIT",
        files={split: (f"{split}.csv",) for split in ("train", "val", "test")},
        fields=("video", "vidor"),
        patterns=("{video}.*", "{vidor}.*"),
        read=read,
    )


CHOICE = _adapter("nextqa-mc", "NExT-QA, multiple choice: why, how and when, five options each.", read_choice)
OPEN = _adapter("nextqa-oe", "NExT-QA, open-ended: why, how and when, answered in words.", read_open)
CHOICE_PROTOCOL = Protocol(
    name=CHOICE.name,
    about="one of five answers to why, how and when, by accuracy",
    source="Xiao et al. 2021, https://github.com/doc-doc/NExT-QA eval_mc.py",
    metric="accuracy",
    split="test",
    judge=judge_choice,
    parts=parts,
    more=more_of_choice,
    published={"train": 34_132, "val": 4_996, "test": 8_564},
    closed="options",
)
OPEN_PROTOCOL = Protocol(
    name=OPEN.name,
    about="open answers to why, how and when, by WUPS@0",
    source="Xiao et al. 2021, https://github.com/doc-doc/NExT-OE eval_oe.py",
    metric="wups",
    split="test",
    judge=judge_open,
    parts=parts,
    more=more_of_open,
    published={"train": 37_523, "val": 5_343, "test": 9_178},
)
