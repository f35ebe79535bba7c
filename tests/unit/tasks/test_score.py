"""Files of predictions: refusals with counts and examples, and scores that do not depend on order."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.annotations import SMALL, write

from mirasol.cli.main import app
from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, write_manifest
from mirasol.tasks.questions import questions_of
from mirasol.tasks.registry import PROTOCOLS, protocol_of
from mirasol.tasks.score import check_material, score_file, score_predictions
from mirasol.tasks.scoring.predictions import Prediction

NAME = "msrvtt-qa"
RIGHT = [("msrvtt-100", "dog"), ("msrvtt-101", "man"), ("msrvtt-102", "cat"), ("msrvtt-103", "two")]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return write(tmp_path / NAME, SMALL[NAME])


def lines(folder: Path, rows: list[Any]) -> Path:
    path = folder / "predictions.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"id": name, "predicted": text} for name, text in pairs]


def scored(annotations: Path, rows: list[Any], **options: Any) -> dict[str, Any]:
    questions = questions_of(PROTOCOLS[NAME], annotations=annotations)
    return score_file(PROTOCOLS[NAME], lines(annotations, rows), questions, **options).report


def refused(annotations: Path, rows: list[Any], **options: Any) -> str:
    with pytest.raises(MirasolError) as caught:
        scored(annotations, rows, **options)
    return str(caught.value)


def test_predictions_of_anybody_are_scored(annotations: Path) -> None:
    report = scored(annotations, said(*RIGHT[:3], ("msrvtt-103", None)))
    assert report["overall"]["exact_match"] == 0.75
    assert report["missing"] == [{"media": "media/video7011.*", "questions": 1}]


def test_the_order_of_lines_does_not_matter(annotations: Path) -> None:
    rows = said(*RIGHT[:2], ("msrvtt-102", "dog"), ("msrvtt-103", None))
    assert scored(annotations, rows[::-1]) == scored(annotations, rows)


def test_known_score_stays(annotations: Path) -> None:
    """Pinned: fixed predictions give the same digits on every run and machine."""
    report = scored(annotations, said(*RIGHT[:3], ("msrvtt-103", "three")))
    assert report["overall"] == {"exact_match": 0.75, "ci95": [0.5, 1.0], "n": 4, "groups": 2}
    assert report["questions"]["sha256"] == HASH


HASH = "be503722b7a6131b5f6317d1152eb2dab9785d0512d4834e048b140d259a154d"


def test_lines_of_the_evaluate_stage_are_taken(annotations: Path) -> None:
    rows = [{"example_id": name, "predicted": {"unchanged": text, "muted": "x"}, "clip": "c"} for name, text in RIGHT]
    assert scored(annotations, rows)["overall"]["exact_match"] == 1.0


def test_unknown_and_missing_ids_are_told_at_once(annotations: Path) -> None:
    message = refused(annotations, said(*RIGHT[:2], ("msrvtt-7", "dog")))
    assert "1 of 3 ids are no question of msrvtt-qa:\n  'msrvtt-7'" in message
    assert "2 of 4 questions of msrvtt-qa have no line" in message
    assert "'msrvtt-102'" in message


def test_missing_lines_count_wrong_if_asked_for(annotations: Path) -> None:
    report = scored(annotations, said(*RIGHT[:2]), missing_wrong=True)
    assert report["overall"]["exact_match"] == 0.5
    assert report["missing"] == [{"media": "media/video7011.*", "questions": 2}]


def test_unknown_ids_are_refused_even_then(annotations: Path) -> None:
    assert "'other-1'" in refused(annotations, said(("other-1", "a"), RIGHT[0]), missing_wrong=True)


def test_repeated_ids_and_broken_lines_are_told_at_once(annotations: Path) -> None:
    rows = [*said(*RIGHT, RIGHT[0]), "{", {"id": "msrvtt-100"}, {"id": 3.5, "predicted": "a"}]
    message = refused(annotations, rows)
    assert "3 line(s) are no prediction" in message
    assert "predictions.jsonl:7: no key 'predicted'" in message
    assert "1 line(s) repeat an id" in message
    assert "predictions.jsonl:5: id 'msrvtt-100' is already in line 1" in message


@pytest.mark.parametrize("predicted", [3, ["a"], {"muted": "a"}, {"unchanged": 3}])
def test_what_is_no_answer_is_refused(annotations: Path, predicted: Any) -> None:
    assert "predicted: expected a text" in refused(annotations, said(("msrvtt-100", predicted)))


@pytest.mark.parametrize("scores", ["[1]", '{"a": "b"}', '{"a": NaN}', '{"a": true}', '{"a": 1' + 400 * "0" + "}"])
def test_scores_that_are_no_numbers_are_refused(annotations: Path, scores: str) -> None:
    assert "scores: expected" in refused(annotations, [f'{{"id": "msrvtt-100", "predicted": "a", "scores": {scores}}}'])


@pytest.mark.parametrize("line", ['"predicted": "\\ud800"', '"predicted": "a", "scores": {"\\uDC00": 1}'])
def test_half_a_character_is_refused(annotations: Path, line: str) -> None:
    assert "is half a character" in refused(annotations, ['{"id": "msrvtt-100", ' + line + "}"])


def test_whole_characters_may_be_spelled_in_escapes(annotations: Path) -> None:
    rows = ['{"id": "msrvtt-100", "predicted": "\\ud83d\\ude00"}', *said(*RIGHT[1:])]
    assert scored(annotations, rows)["overall"]["exact_match"] == 0.75


def test_an_answer_file_of_another_benchmark_is_refused(annotations: Path) -> None:
    message = refused(annotations, said(("v_abc_1", "dog"), ("v_abc_2", "cat")))
    assert "2 of 2 ids are no question of msrvtt-qa, none is" in message
    assert "predictions of another benchmark or split ('v_abc_1', where msrvtt-qa asks 'msrvtt-100')" in message
    assert "have no line" not in message  # all four: it would only bury the reason


def test_lines_that_name_another_benchmark_or_answer_are_refused(annotations: Path) -> None:
    rows = said(*RIGHT)
    rows[0]["benchmark"] = "msvd-qa"
    rows[1]["answers"] = ["woman"]
    message = refused(annotations, rows)
    assert "2 line(s) are of another benchmark or version" in message
    assert "'msrvtt-100': of benchmark 'msvd-qa', expected 'msrvtt-qa'" in message
    assert "'msrvtt-101': its answers are ['woman'], here they are ['man']" in message


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(annotations: Path, content: str) -> None:
    (annotations / "empty.jsonl").write_text(content)
    questions = questions_of(PROTOCOLS[NAME], annotations=annotations)
    with pytest.raises(MirasolError, match="holds no prediction"):
        score_file(PROTOCOLS[NAME], annotations / "empty.jsonl", questions)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "empty", {"test_qa.json": []})
    with pytest.raises(MirasolError, match="split 'test' of msrvtt-qa has no question"):
        questions_of(PROTOCOLS[NAME], annotations=folder)


def test_an_empty_split_names_those_that_are_not(annotations: Path) -> None:
    (annotations / "test_qa.json").write_text("[]")
    with pytest.raises(MirasolError, match=r"no question with an answer.*train has 3, val no file, test has 0"):
        questions_of(PROTOCOLS[NAME], annotations=annotations)


@pytest.mark.parametrize("split", ["validation", "test=val"])
def test_an_unknown_split_is_refused(annotations: Path, split: str) -> None:
    with pytest.raises(MirasolError, match=f"--split {split}: expected one of train, val, test"):
        questions_of(PROTOCOLS[NAME], annotations=annotations, split=split)


def test_an_unknown_benchmark_names_those_there_are() -> None:
    with pytest.raises(MirasolError, match="unknown benchmark 'msrvtt': expected one of msrvtt-qa, msvd-qa"):
        protocol_of("msrvtt")


def data(folder: Path, summary: dict[str, Any] | None = None) -> Path:
    rows = [
        Example(f"{split}-{i}", f"media/{split}{i}.mp4", None, None, "qa", "what?", ("Dog",), split, f"{split}{i}")
        for split in ("train", "val")
        for i in range(2)
    ]
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", rows)
    if summary is not None:
        (folder / "import.json").write_text(json.dumps(summary))
    return folder


def test_questions_of_a_data_folder(tmp_path: Path) -> None:
    questions = questions_of(PROTOCOLS["generic"], data=data(tmp_path / "data"), split="val")
    assert ([q.id for q in questions.asked], len(questions.train)) == (["val-0", "val-1"], 2)


def test_an_empty_split_of_a_data_folder_is_refused_with_counts(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"split 'test' has no example of task 'qa'.*train has 2, val has 2, test"):
        questions_of(PROTOCOLS["generic"], data=data(tmp_path / "data"))


def test_a_data_folder_of_another_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="this folder holds 'msvd-qa', expected 'msrvtt-qa'"):
        questions_of(PROTOCOLS[NAME], data=data(tmp_path / "data", {"set": "msvd-qa"}))


def test_a_data_folder_that_no_set_was_imported_to_is_refused(tmp_path: Path) -> None:
    """As the built-in world's is: its questions would be scored in the name of the benchmark."""
    with pytest.raises(MirasolError, match=r"no import\.json.*mirasol data import msrvtt-qa"):
        questions_of(PROTOCOLS[NAME], data=data(tmp_path / "data"), split="val")


@pytest.mark.parametrize(("used", "split"), [({}, "val"), ({"validation": "val"}, "val")])
def test_epic_sounds_scores_what_validation_became(tmp_path: Path, used: dict[str, str], split: str) -> None:
    folder = data(tmp_path / "data", {"set": "epic-sounds", "used_as": used})
    assert questions_of(PROTOCOLS["epic-sounds"], data=folder).split == split


def test_validation_used_as_test_is_not_mistaken_for_the_val_made_from_train(tmp_path: Path) -> None:
    folder = data(tmp_path / "data", {"set": "epic-sounds", "used_as": {"train": "train", "validation": "test"}})
    with pytest.raises(MirasolError, match="split 'test' has no example"):
        questions_of(PROTOCOLS["epic-sounds"], data=folder)


@pytest.mark.parametrize(
    ("name", "used", "ours", "published"),
    [
        ("epic-sounds", {"validation": "val"}, "val", "validation"),
        ("epic-sounds", {"train": "train", "validation": "test"}, "val", None),  # made from train: never published
        ("msvd-qa", {"val": "val"}, "val", "val"),
        ("msvd-qa", {}, "val", "val"),
        ("generic", {}, "val", None),
    ],
)
def test_the_published_split_of_a_data_folder(
    tmp_path: Path, name: str, used: dict[str, str], ours: str, published: str | None
) -> None:
    """The number of questions that were published belongs to it, whatever an import used the split as."""
    folder = data(tmp_path / "data", {"set": name, "used_as": used})
    questions = questions_of(PROTOCOLS[name], data=folder, split=ours)
    assert (questions.split, questions.published) == (ours, published)
    predictions = [Prediction(q.id, "Dog") for q in questions.asked]
    asked = score_predictions(PROTOCOLS[name], predictions, questions).report["questions"]
    assert (asked["split"], asked["published"]) == (published, PROTOCOLS[name].published.get(str(published)))


def test_classes_that_are_equal_when_normalised_are_refused_before_answering(tmp_path: Path) -> None:
    questions = questions_of(PROTOCOLS["generic"], data=data(tmp_path / "data"), split="val")
    classes = replace(PROTOCOLS["generic"], closed="classes")
    check_material(classes, questions)
    twice = replace(questions, train=(replace(questions.train[0], answers=("dog.",)),))
    with pytest.raises(MirasolError, match=r"'dog\.' and 'Dog'"):
        check_material(classes, twice)


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    app(["score", *args], standalone_mode=False)
    return " ".join(capsys.readouterr().err.split())


def test_a_file_of_other_size_than_published_is_noted(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The advice to score by the set's own files is no help to who did."""
    said_so = printed(capsys, NAME, str(lines(annotations, said(*RIGHT))), "--annotations", str(annotations))
    assert "72,821 questions were published, these files have 4" in said_so
    assert "--missing-wrong" not in said_so


def test_neither_or_both_sources_are_refused(tmp_path: Path) -> None:
    for given in ({}, {"annotations": tmp_path, "data": tmp_path}):
        with pytest.raises(MirasolError, match="name the questions: --annotations"):
            questions_of(PROTOCOLS[NAME], **given)


def test_scoring_and_comparing_work_without_torch(annotations: Path) -> None:
    path = lines(annotations, said(*RIGHT))
    out = annotations / "out"
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from mirasol.cli.main import app\n"
        f"app(['score', '{NAME}', r'{path}', '--annotations', r'{annotations}', '--out', r'{out}'], "
        "standalone_mode=False)\n"
        f"app(['compare', r'{out}/predictions.jsonl', r'{out}/predictions.jsonl'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exact_match" in done.stdout
    assert "ids " in done.stdout
    report = json.loads((out / "scores.json").read_text())
    assert report["overall"]["exact_match"] == 1.0
    assert [json.loads(line)["score"] for line in (out / "predictions.jsonl").read_text().splitlines()] == [1.0] * 4
