"""Annotation rows with odd values: one error with file and line, never a traceback, and nothing half-made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.media import write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example
from mirasol.runtime.answers_table import read_files
from mirasol.tasks.base.annotations import Annotations
from mirasol.tasks.generic import import_generic, read_generic

ROW = '{"media": "a.mp4", "answers": ["dog"]%s}'


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for name in "ab":
        (tmp_path / f"videos/{name}.mp4").touch()
    return tmp_path / "videos"


def read(media: Path, text: str, name: str) -> tuple[list[Example], list[str]]:
    path = media.parent / name
    path.write_text(text, encoding="utf-8")
    return read_generic(path, media)


def errors_of(media: Path, text: str, name: str) -> Iterator[str]:
    with pytest.raises(MirasolError) as error:
        read(media, text, name)
    return (line.strip().removeprefix(f"{media.parent}/") for line in str(error.value).splitlines())


ODD = {
    "a number of 400 digits": (ROW % (', "start": 1' + 400 * "0"), "start: expected seconds"),
    "half of a character": (ROW % r', "prompt": "\ud83d"', "holds half of a character"),
    "lists in lists": (100_000 * "[", "not JSON"),
    "a key that occurs twice": (ROW % ', "answers": ["cat"]', "the key 'answers' occurs twice"),
    "a number in place of a text": (ROW % ', "group": {"a": [1]}', "group: expected a text"),
    "a value that is true": (ROW % ', "end": true', "end: expected seconds"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_row_is_reported_with_its_line(media: Path, case: str) -> None:
    text, message = ODD[case]
    found = errors_of(media, f"{ROW % ''}\n{text}\n", "odd.jsonl")
    assert [line for line in found if line.startswith(f"odd.jsonl:2: {message}")]


def test_a_name_that_no_file_can_have_is_a_missing_file(media: Path) -> None:
    name = 5000 * "n"
    examples, missing = read(media, f"media,answers,start\n{name},dog,1\n", "long.csv")
    assert (examples, missing) == ([], [f"{media.parent}/long.csv:2: {name}"])


def test_all_wrong_rows_are_reported_at_once(media: Path) -> None:
    text = 'media,answers,start\na.mp4,dog\n"a.mp4","two\nlines",soon\na.mp4,dog,1,2\nb.mp4,cat,-1\n'
    lines = [line.split(": ")[0] for line in errors_of(media, text, "odd.csv")]
    assert lines[1:] == [f"odd.csv:{line}" for line in (2, 3, 5, 6)]


def test_a_column_that_occurs_twice_is_refused_by_every_reader(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("file,media,file\na,b,c\n")
    with pytest.raises(MirasolError, match=r"twice\.csv:1: the column 'file' occurs twice"):
        list(Annotations(tmp_path).csv(tmp_path / "twice.csv"))
    with pytest.raises(MirasolError, match=r"twice\.csv:1: the column 'file' occurs twice"):
        read_files(tmp_path / "twice.csv")


def test_two_spellings_of_a_path_are_one_file(media: Path) -> None:
    text = "media,answers,split\n./a.mp4,dog,train\na.mp4,cat,test\n"
    assert "slash.csv:3: group 'a.mp4' is in the split 'test' here and in 'train' in line 2" in "".join(
        errors_of(media, text, "slash.csv")
    )


def test_invisible_characters_make_no_other_answer(media: Path) -> None:
    examples, _ = read(media, "media,answers\na.mp4,yes\u200b\nb.mp4,\u00a0yes\ufeff\n", "hidden.csv")
    assert {example.answers for example in examples} == {("yes",)}


def test_times_of_json_may_be_texts(media: Path) -> None:
    examples, _ = read(media, ROW % ', "start": "1.5", "end": "0:02"', "times.jsonl")
    assert (examples[0].start, examples[0].end) == (1.5, 2.0)


def test_an_import_that_fails_at_a_medium_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    write_media(tmp_path / "videos/a.mp4", frames=2, size=(16, 16))
    (tmp_path / "notes.csv").write_text("media,answers\na.mp4,dog\n")
    monkeypatch.setattr("mirasol.media.probe.probe_file", fails)
    with pytest.raises(RuntimeError):
        import_generic(tmp_path / "notes.csv", tmp_path / "videos", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_probe_names_what_it_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mirasol.media import probe

    def fails(*_: object) -> None:
        raise ValueError("29 is not a valid Type")

    monkeypatch.setattr(probe, "check_file", fails)
    assert probe.probe_unguarded("a.mov").reason == "a.mov: 29 is not a valid Type"
