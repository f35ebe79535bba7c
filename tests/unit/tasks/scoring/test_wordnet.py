"""WordNet's files and the similarity of Wu and Palmer, on a small WordNet with known depths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.wordnet import write_wordnet

from mirasol.core.errors import MirasolError
from mirasol.tasks.nextqa import Wups
from mirasol.tasks.scoring.wordnet import WordNet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_wordnet(tmp_path / "wordnet")


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("dog", "dog", 1.0),
        ("dog", "cat", 2 * 2 / (3 + 3)),  # animal has depth 2 with the root counted, each of the two is one below
        ("puppy", "cat", 2 * 2 / (4 + 3)),
        ("puppy", "dog", 2 * 3 / (4 + 3)),
        ("puppy", "rock", 2 * 1 / (4 + 2)),
        ("run", "walk", 2 * 1 / (3 + 3)),  # verbs get a root above them, and it wins over a top of equal depth
        ("run", "play", 2 * 1 / (3 + 2)),
        ("dog", "play", 2 * 1 / (4 + 2)),  # across parts of speech only that root is common
        ("well", "well", 1.0),
    ],
)
def test_similarity_of_first_senses(folder: Path, first: str, second: str, similarity: float) -> None:
    wordnet = WordNet(folder)
    a, b = wordnet.first(first), wordnet.first(second)
    assert a and b
    assert wordnet.wup(a, b) == pytest.approx(similarity, abs=0)
    assert wordnet.wup(b, a) == pytest.approx(similarity, abs=0)


@pytest.mark.parametrize(
    ("word", "base"),
    [("dogs", "dog"), ("puppies", "puppy"), ("men", "man"), ("ran", "run"), ("walking", "walk"), ("xyz", "xyz")],
)
def test_base_forms(folder: Path, word: str, base: str) -> None:
    assert WordNet(folder).base(word) == base


def test_a_word_that_is_not_there_has_no_sense(folder: Path) -> None:
    assert WordNet(folder).first("xyz") is None


@pytest.mark.parametrize(
    ("predicted", "reference", "score"),
    [
        ("a dog", "the dogs", 1.0),
        ("cat", "dog", 2 / 3),
        ("cat runs", "dog", 2 / 3 * 2 / 7),  # dog to cat 2/3, run to dog 2 / (3 + 4); the smaller direction counts
        ("xyz dog", "dog", 1.0),  # a word like none is left out
        ("xyz", "dog", 0.0),
        ("", "dog", 0.0),
        ("xyz", "xyz", 1.0),  # equal words are alike whatever WordNet has
    ],
)
def test_wups_by_hand(folder: Path, predicted: str, reference: str, score: float) -> None:
    assert Wups(folder, ("a", "the"))(predicted, reference) == pytest.approx(score)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"(?s)12 of 12 files missing.*apt install wordnet-base.*--wordnet"):
        WordNet(tmp_path)


def test_one_missing_file_is_named(folder: Path) -> None:
    (folder / "verb.exc").unlink()
    with pytest.raises(MirasolError, match=r"1 of 12 files missing: verb\.exc"):
        WordNet(folder)


def test_a_broken_index_is_told_with_its_line(folder: Path) -> None:
    path = folder / "index.noun"
    path.write_text(path.read_text().replace("dog n 1", "dog n 7"))
    with pytest.raises(MirasolError, match=r"index\.noun:4: not a WordNet index line"):
        WordNet(folder)


def test_data_of_another_wordnet_is_told(folder: Path) -> None:
    path = folder / "data.noun"
    path.write_text(" " + path.read_text())
    wordnet = WordNet(folder)
    with pytest.raises(MirasolError, match="not of one WordNet"):
        wordnet.wup(("noun", 28), ("noun", 28 + 40))


REAL = Path(os.environ.get("MIRASOL_WORDNET", "/usr/share/wordnet"))


@pytest.mark.skipif(not (REAL / "data.noun").is_file(), reason=f"no WordNet 3.0 in {REAL}: set MIRASOL_WORDNET")
@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("dog", "cat", 0.8571428571428571),
        ("playing", "jump", 0.38095238095238093),
        ("sit", "stand", 0.16666666666666666),
        ("table", "quickly", 0.2222222222222222),
        ("babies", "toddler", 0.5714285714285714),
        ("red", "blue", 0.875),
        ("walked", "ran", 0.2857142857142857),
        ("mountain", "kitchen", 0.4),
    ],
)
def test_real_similarities_are_those_of_nltk(first: str, second: str, similarity: float) -> None:
    """Computed by NLTK 3's ``wup_similarity`` of the first synsets, on the same files."""
    wordnet = WordNet(REAL)
    a, b = wordnet.first(first), wordnet.first(second)
    assert a and b
    assert wordnet.wup(a, b) == similarity
