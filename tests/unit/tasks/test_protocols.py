"""Each benchmark's protocol on predictions of known score, on small made files and real ones."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.annotations import SMALL, write
from support.media import SHARED
from support.wordnet import write_wordnet

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.tasks.questions import Questions, questions_of
from mirasol.tasks.registry import PROTOCOLS
from mirasol.tasks.score import score_predictions
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.normalise import ARTICLES, normalise
from mirasol.tasks.scoring.predictions import Prediction

FOLDER = SHARED / "annotations"
WORDNET = Path(os.environ.get("MIRASOL_WORDNET", "/usr/share/wordnet"))
SPEC = EvaluateSpec(resamples=100)
REAL = [name for name in SMALL if name != "msrvtt-qa"]  # of which 300 rows of val are at hand, tested apart
Say = Callable[[Example], str | None]


@functools.cache
def real(name: str) -> Questions:
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no real files in {FOLDER}: set MIRASOL_SHARED")
    if name == "nextqa-oe" and not (WORDNET / "data.noun").is_file():
        pytest.skip(f"no WordNet in {WORDNET}: set MIRASOL_WORDNET")
    return questions_of(PROTOCOLS[name], annotations=FOLDER / name)


@pytest.fixture
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Questions, Path]:
    """Name, questions and WordNet of a benchmark: ``small NAME`` or ``real NAME``."""
    kind, name = request.param.split()
    if kind == "real":
        return name, real(name), WORDNET
    folder = write(tmp_path / name, SMALL[name])
    return name, questions_of(PROTOCOLS[name], annotations=folder), write_wordnet(tmp_path / "wordnet")


BOTH = [f"small {name}" for name in SMALL] + [f"real {name}" for name in REAL]
every_set = pytest.mark.parametrize("asked", BOTH, indirect=True)


def report(asked: tuple[str, Questions, Path], say: Say) -> dict[str, Any]:
    name, questions, wordnet = asked
    predictions = [Prediction(q.id, say(q)) for q in questions.asked]
    return score_predictions(PROTOCOLS[name], predictions, questions, wordnet=wordnet, spec=SPEC).report


def scores(found: dict[str, Any]) -> dict[str, float]:
    """The headline of all and of every part."""
    return {name: cell[found["metric"]] for name, cell in ({"all": found["overall"]} | found["parts"]).items()}


def right(question: Example) -> str:
    return question.answers[0]


@every_set
def test_all_right(asked: tuple[str, Questions, Path]) -> None:
    found = report(asked, right)
    assert set(scores(found).values()) == {1.0}
    assert found["missing"] == []
    assert found["questions"]["n"] == len(asked[1].asked)


@every_set
def test_all_wrong(asked: tuple[str, Questions, Path]) -> None:
    assert set(scores(report(asked, lambda q: "qqqq")).values()) == {0.0}


@every_set
def test_one_part_right(asked: tuple[str, Questions, Path]) -> None:
    """A part's own questions right and no others: it has 1, what shares none of them has 0, all has its share."""
    name, questions, _ = asked
    protocol = PROTOCOLS[name]
    parts = {q.id: set(protocol.parts(q)) for q in questions.asked}
    for part in sorted(set().union(*parts.values()))[:2]:
        found = report(asked, lambda q, part=part: right(q) if part in parts[q.id] else None)
        own = [p for p in parts.values() if part in p]
        assert scores(found)[part] == 1.0
        assert scores(found)["all"] == round(len(own) / len(parts), 6)
        apart = set(scores(found)) - set().union(*own) - {"all"}
        assert all(scores(found)[other] == 0.0 for other in apart)


@every_set
def test_a_missing_video_counts_wrong_and_is_listed(asked: tuple[str, Questions, Path]) -> None:
    questions = asked[1].asked
    lost = questions[0].media
    count = sum(q.media == lost for q in questions)
    found = report(asked, lambda q: None if q.media == lost else right(q))
    assert found["missing"] == [{"media": lost, "questions": count}]
    assert scores(found)["all"] == round(1 - count / len(questions), 6)


@every_set
def test_case_articles_and_dots_do_not_matter(asked: tuple[str, Questions, Path]) -> None:
    found = report(asked, lambda q: f"The {right(q).upper()}.")
    alone = sum(normalise(right(q)) in ARTICLES for q in asked[1].asked)  # "a" is an answer of ActivityNet-QA
    assert scores(found)["all"] == round(1 - alone / len(asked[1].asked), 6)
    assert found.get("exact_match_raw", 0.0) == 0.0


@pytest.mark.parametrize("asked", [*BOTH[: len(SMALL)], "real nextqa-mc"], indirect=True)
def test_the_score_is_the_same_in_any_order(asked: tuple[str, Questions, Path]) -> None:
    name, questions, wordnet = asked

    def say(q: Example) -> str:
        return right(q) if hash_bit(q.id) else right(questions.asked[0])

    order = list(questions.asked)
    random.Random(3).shuffle(order)
    first, second = report(asked, say), report((name, replace(questions, asked=tuple(order)), wordnet), say)
    first.pop("official", None), second.pop("official", None)  # it goes by the order of the set's file
    assert first == second


def hash_bit(text: str) -> bool:
    return sum(text.encode()) % 3 > 0


def small(name: str, folder: Path) -> tuple[str, Questions, Path]:
    files = write(folder / name, SMALL[name])
    return name, questions_of(PROTOCOLS[name], annotations=files), write_wordnet(folder / "wordnet")


def test_every_benchmark_names_its_source() -> None:
    assert all(p.source and p.about and p.name == name for name, p in PROTOCOLS.items())


def test_vocabulary_is_a_ceiling(tmp_path: Path) -> None:
    """Train says dog and cat: of dog, man, cat and two half can be reached by whoever chooses from these."""
    found = report(small("msrvtt-qa", tmp_path), right)
    assert found["vocabulary"]["all"] == {"answers": 2, "coverage": 0.5, "ceiling": 0.5}


def test_without_a_training_split_there_is_no_vocabulary(tmp_path: Path) -> None:
    assert report(small("activitynet-qa", tmp_path), right)["vocabulary"] is None


def test_closed_set_of_open_questions(tmp_path: Path) -> None:
    name, questions, _ = small("msrvtt-qa", tmp_path)
    lines = [Prediction(q.id, "x", {"dog": -1.0, "man": -2.0, "cat": -3.0}) for q in questions.asked]
    found = score_predictions(PROTOCOLS[name], lines, questions, spec=SPEC).report
    assert (found["closed"], found["overall"]["exact_match"]) == (0.25, 0.0)
    half = [line if i else replace(line, scores={}) for i, line in enumerate(lines)]
    assert score_predictions(PROTOCOLS[name], half, questions, spec=SPEC).report["closed"] is None


def test_activitynet_free_by_the_official_denominator(tmp_path: Path) -> None:
    """Types first occur as 3 8 0 1 2 4 5 6 7: the script divides by all but those of 3, 8 and 0, which is 6."""
    found = report(small("activitynet-qa", tmp_path), right)["official"]
    assert (found["free_questions"], found["free_official_questions"]) == (9, 6)
    assert (found["all"], found["free"], found["free_official"]) == (1.0, 1.0, round(9 / 6, 6))


def test_activitynet_free_without_a_type_has_no_official_figure(tmp_path: Path) -> None:
    name, questions, wordnet = small("activitynet-qa", tmp_path)
    some = replace(questions, asked=questions.asked[:6])
    assert report((name, some, wordnet), right)["official"]["free_official"] is None


@pytest.mark.parametrize(("split", "official", "free"), [("test", 4021, 5600), ("val", 8399, 12600)])
def test_activitynet_denominators_of_the_real_files(tmp_path: Path, split: str, official: int, free: int) -> None:
    name = "activitynet-qa"
    real(name)
    for kind in "qa":  # no training split, which would be read for its vocabulary
        (tmp_path / f"{split}_{kind}.json").symlink_to(FOLDER / name / f"{split}_{kind}.json")
    questions = questions_of(PROTOCOLS[name], annotations=tmp_path, split=split)
    found = report((name, questions, WORDNET), right)["official"]
    assert (found["free_official_questions"], found["free_questions"]) == (official, free)
    assert found["free_official"] == round(free / official, 6)


def test_activitynet_official_figures_compare_characters(tmp_path: Path) -> None:
    found = report(small("activitynet-qa", tmp_path), lambda q: right(q).upper())
    assert (found["official"]["all"], found["overall"]["exact_match"]) == (0.0, 1.0)


def test_an_answer_that_is_no_option_is_counted(tmp_path: Path) -> None:
    found = report(small("nextqa-mc", tmp_path), lambda q: "to fly")
    assert found["not_an_option"] == 4


def test_options_that_differ_by_an_article_stay_apart(tmp_path: Path) -> None:
    files = {"test.csv": SMALL["nextqa-mc"]["test.csv"].replace("to eat", "the play").replace("to play", "play")}
    questions = questions_of(PROTOCOLS["nextqa-mc"], annotations=write(tmp_path / "mc", files))
    for said, score in (("play", 1.0), ("the play", 0.0), ("a play", 0.0)):
        found = report(("nextqa-mc", questions, tmp_path), lambda q, said=said: said if q.family == "CW" else right(q))
        assert scores(found)["CW"] == score


def test_before_and_after_are_one_type(tmp_path: Path) -> None:
    assert set(scores(report(small("nextqa-mc", tmp_path), right))) == {"all", "C", "CW", "T", "TN", "D", "DC"}


def test_near_words_count_in_part_but_not_of_counts(tmp_path: Path) -> None:
    """puppies for dogs: 6/7 by WordNet; one for two is wrong however near; the second reference is as good."""
    said = {"11_0": "it plays", "11_1": "dogs", "12_0": "one", "12_1": "Yes."}
    found = scores(report(small("nextqa-oe", tmp_path), lambda q: said[q.id]))
    assert found == {"all": round((1 + 6 / 7 + 0 + 1) / 4, 6), "C": 1.0, "CW": 1.0, "T": round(6 / 7, 6),
                     "TN": round(6 / 7, 6), "D": 0.5, "DC": 0.0, "DB": 1.0}  # fmt: skip


def test_wups_needs_the_stop_words(tmp_path: Path) -> None:
    asked = small("nextqa-oe", tmp_path)
    (tmp_path / "nextqa-oe/stopwords.txt").unlink()
    with pytest.raises(MirasolError, match=r"no stopwords\.txt in .*nextqa-oe"):
        report(asked, right)


def ranked(name: str, questions: Questions, place: int) -> dict[str, Any]:
    """The score where the right class has ``place`` others before it."""
    classes = sorted({q.answers[0] for q in questions.asked})
    lines = []
    for q in questions.asked:
        others = [c for c in classes if c != right(q)]
        order = [*others[:place], right(q), *others[place:]]
        lines.append(Prediction(q.id, order[0], {c: -float(i) for i, c in enumerate(order)}))
    return score_predictions(PROTOCOLS[name], lines, questions, spec=SPEC).report


def test_top_1_and_top_5_of_real_classes() -> None:
    questions = real("epic-sounds")
    tops = []
    for place in (0, 4, 5):
        found = ranked("epic-sounds", questions, place)
        tops.append((found["closed_top1"], found["closed_top5"], found["overall"]["top1"]))
    assert tops == [(1.0, 1.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)]


def test_each_class_counts_the_same(tmp_path: Path) -> None:
    """Two of three clips are bowling: right on these alone is 2/3 of the clips and 1/2 of the classes."""
    found = report(small("kinetics-sounds", tmp_path), lambda q: "bowling")
    assert (found["overall"]["top1"], found["mean_class_accuracy"], found["not_a_class"]) == (0.666667, 0.5, 0)
    assert scores(found)["singing"] == 0.0


@pytest.mark.parametrize(
    ("name", "classes", "published"), [("vggsound", 309, 309), ("epic-sounds", 44, 44), ("kinetics-sounds", 30, None)]
)
def test_real_class_lists_have_a_number_and_a_hash(name: str, classes: int, published: int | None) -> None:
    found = report((name, real(name), WORDNET), right)["classes"]
    assert (found["n"], found["published"], len(found["sha256"])) == (classes, published, 64)


def test_classes_that_are_equal_when_normalised_are_refused(tmp_path: Path) -> None:
    files = {"ids_to_class.json": {"test": {"aaaaaaaaaaa": "bowling", "bbbbbbbbbbb": "Bowling"}}}
    questions = questions_of(PROTOCOLS["kinetics-sounds"], annotations=write(tmp_path / "ks", files))
    with pytest.raises(MirasolError, match="'bowling' and 'Bowling'"):
        report(("kinetics-sounds", questions, tmp_path), right)


def test_the_300_rows_of_msrvtt_qa(tmp_path: Path) -> None:
    if not (FOLDER / "msrvtt-qa").is_dir():
        pytest.skip(f"no real files in {FOLDER}: set MIRASOL_SHARED")
    (tmp_path / "val_qa.json").symlink_to(FOLDER / "msrvtt-qa/test_qa.first300.json")
    questions = questions_of(PROTOCOLS["msrvtt-qa"], annotations=tmp_path, split="val")
    found = report(("msrvtt-qa", questions, tmp_path), lambda q: right(q) if q.family == "who" else "qqqq")
    assert found["overall"]["n"] == 300
    assert scores(found)["who"] == 1.0
    assert scores(found)["all"] == round(found["parts"]["who"]["n"] / 300, 6)
