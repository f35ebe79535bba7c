"""Answers about many files: equal to single answers, in order, continued after an interruption."""

from __future__ import annotations

import csv
import json
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from support.bundle import QUESTION, tiny_bundle
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.runtime import predict as module
from mirasol.runtime.answers_table import COLUMNS, Row, open_table, summary_path
from mirasol.runtime.model import load
from mirasol.runtime.predict import Asked, Loading, predict, row_of, rows_of, tasks_of

OTHER = "is it red"
LOADING = Loading(str(tiny_bundle()))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two clips, one of them in a subfolder, and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "b").mkdir()
    write_media(folder / "b" / "clip.mkv", frames=8, sound=tone(1.0))
    shutil.copy(folder / "b" / "clip.mkv", folder / "a.mkv")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def run(source: Path, out: Path, *asks: str, workers: int = 0) -> dict[str, Any]:
    return predict(tasks_of(source, asks), out, LOADING, workers=workers, progress=False)


def rows(out: Path) -> list[Row]:
    with out.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    return [Row(*line) for line in lines]


def test_rows_are_single_answers_in_order(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "out.csv", QUESTION, OTHER)
    model = load(tiny_bundle(), threads=1)
    found = rows(tmp_path / "out.csv")
    assert [(row.file, row.question) for row in found] == [
        (name, ask) for name in ("a.mkv", "b/clip.mkv", "broken.mp4") for ask in (QUESTION, OTHER)
    ]
    assert found[:4] == [row_of(r.file, r.question, model.answer(clips / r.file, r.question)) for r in found[:4]]


def test_a_file_that_cannot_be_used_is_flagged_and_counted(clips: Path, tmp_path: Path) -> None:
    summary = run(clips, tmp_path / "out.csv", QUESTION)
    last = rows(tmp_path / "out.csv")[-1]
    assert last.flag.startswith("unreadable: ") and last.answer == ""
    assert (list(summary["unreadable"]), summary["answers"], summary["files"]) == (["broken.mp4"], 2, 3)
    assert json.loads(summary_path(tmp_path / "out.csv").read_text()) == summary


def test_the_same_command_again_asks_about_unreadable_files_alone(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clips, tmp_path / "out.csv", QUESTION)
    before = (tmp_path / "out.csv").read_bytes()
    asked = []
    monkeypatch.setattr(module, "rows_of", lambda _, task, join: asked.append(task.name) or rows_of(_, task, join))
    assert run(clips, tmp_path / "out.csv", QUESTION)["reused"] == 2
    assert asked == ["broken.mp4"]
    assert (tmp_path / "out.csv").read_bytes() == before


def test_a_file_that_came_back_is_answered(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "ask.csv").write_text(f"file,question\nlate.mkv,{QUESTION}\na.mkv,{QUESTION}\n")
    shutil.copy(clips / "a.mkv", tmp_path)
    assert list(run(tmp_path / "ask.csv", tmp_path / "out.csv")["unreadable"]) == ["late.mkv"]
    shutil.copy(clips / "a.mkv", tmp_path / "late.mkv")
    summary = run(tmp_path / "ask.csv", tmp_path / "out.csv")
    assert (summary["unreadable"], summary["answers"], summary["reused"]) == ({}, 2, 1)
    assert [row.file for row in rows(tmp_path / "out.csv")] == ["a.mkv", "late.mkv"]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_row_that_was_cut_off_is_written_again(clips: Path, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "out.csv"
    run(clips, out, QUESTION)
    whole = out.read_bytes()
    os.truncate(out, len(whole) - cut)
    run(clips, out, QUESTION)
    assert out.read_bytes() == whole


def test_a_table_cut_off_within_its_header_begins_again(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("file,ques")
    run(clips, out, QUESTION)
    assert len(rows(out)) == 3


def test_a_new_question_is_added(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "out.csv", QUESTION)
    assert run(clips, tmp_path / "out.csv", QUESTION, OTHER)["reused"] == 2
    found = [row.question for row in rows(tmp_path / "out.csv")]
    assert found == [QUESTION] * 2 + [OTHER] * 2 + [QUESTION, OTHER], "the unreadable file is asked again, last"


@pytest.mark.parametrize(
    ("text", "beside", "message"),
    [
        ("file,label\na,b\n", '{"bundle": "BUNDLE"}', "is not a table of answers"),
        (",".join(COLUMNS) + "\n", None, "no out.csv.json next to it names the bundle"),
        (",".join(COLUMNS) + "\n", '{"bundle": "other"}', "holds answers of the bundle other"),
        (",".join(COLUMNS) + "\na,b\n", '{"bundle": "BUNDLE"}', "row 2: 2 columns"),
    ],
)
def test_another_file_in_place_of_the_table_stays(tmp_path: Path, text: str, beside: str | None, message: str) -> None:
    out = tmp_path / "out.csv"
    out.write_text(text)
    if beside:
        summary_path(out).write_text(beside)
    with pytest.raises(MirasolError, match=message), open_table(out, "BUNDLE"):
        pass
    assert out.read_text() == text


def test_two_writers_of_one_table(tmp_path: Path) -> None:
    with (
        open_table(tmp_path / "out.csv", "BUNDLE"),
        pytest.raises(MirasolError, match="another `mirasol predict` writes it"),
        open_table(tmp_path / "out.csv", "BUNDLE"),
    ):
        pass


def test_a_csv_names_files_and_questions(tmp_path: Path) -> None:
    table = tmp_path / "ask.csv"
    table.write_text("\ufeffquestion,file,more\nq1,b.mp4,\nq2,a.mp4,\nq2,b.mp4,\nq1,b.mp4,\n", encoding="utf-8")
    found = [(task.name, task.questions) for task in tasks_of(table, [])]
    assert found == [("b.mp4", ("q1", "q2")), ("a.mp4", ("q2",))]
    assert tasks_of(table, [])[0].path == str(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;question\n", "separate columns by commas"),
        ("file\na.mp4\n", "no column question .*--ask"),
        ("file,question\na.mp4,\n,q\n", r"2 error.*\n  .*ask\.csv:2: question is empty\n  .*ask\.csv:3: file is empty"),
        ("file,question\n", "holds no row"),
    ],
)
def test_a_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ask.csv").write_text(text)
    with pytest.raises(MirasolError, match=message):
        tasks_of(tmp_path / "ask.csv", [])


@pytest.mark.parametrize(
    ("name", "asks", "message"),
    [
        ("a.mkv", ["q"], "for one file use `mirasol answer`"),
        ("nowhere", ["q"], "no such folder"),
        ("", [], "give a question with --ask"),
        ("b", [], "give a question with --ask"),
    ],
)
def test_a_wrong_source(clips: Path, name: str, asks: list[str], message: str) -> None:
    with pytest.raises(MirasolError, match=message):
        tasks_of(clips / name, asks)


def test_a_question_that_is_too_long_is_refused_before_anything_is_written(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="the question has 22 tokens"):
        run(clips, tmp_path / "out.csv", "red " * 20)
    assert list(tmp_path.iterdir()) == []


def test_no_file_that_can_be_used_is_an_error_with_a_table(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.mp4").write_bytes(b"no video")
    with pytest.raises(MirasolError, match=r"none of the 1 files can be used, first one\.mp4: "):
        run(tmp_path / "clips", tmp_path / "out.csv", QUESTION)
    assert len(rows(tmp_path / "out.csv")) == 1


def test_a_decoder_that_crashes_costs_its_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(task: Asked, _: Loading) -> list[Row]:
        return module._unreadable(task, module.CRASHED) if task.name == "bad" else [Row(task.name, *[""] * 6)]

    def pooled(tasks: list[Asked], loading: Loading, _: int) -> Any:
        for task in tasks:
            if task.name == "bad":
                raise BrokenProcessPool
            yield alone(task, loading)

    monkeypatch.setattr(module, "_alone", alone)
    monkeypatch.setattr(module, "_pooled", pooled)
    tasks = [Asked(name, name, ("q",)) for name in (*"abcd", "bad", *"efghijkl")]
    found = [row for each in module._answered(tasks, None, LOADING, 1) for row in each]
    assert [row.file for row in found] == [task.name for task in tasks]
    assert [row.file for row in found if row.flag] == ["bad"]


def test_joined_files_are_one_stream(tmp_path: Path, clips: Path) -> None:
    for name in ("1.mkv", "2.mkv"):
        shutil.copy(clips / "a.mkv", tmp_path / name)
    model = load(tiny_bundle(), threads=1)
    assert model.answer(tmp_path, QUESTION, join=True).seconds == 2 * model.answer(tmp_path / "1.mkv", QUESTION).seconds
    with pytest.raises(MirasolError, match="is a folder: `mirasol predict`"):
        model.answer(tmp_path, QUESTION)


@pytest.mark.slow
def test_two_processes_give_the_same_table(clips: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        run(clips, tmp_path / f"{workers}.csv", QUESTION, workers=workers)
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
