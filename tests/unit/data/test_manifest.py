"""The manifest survives writing and reading, and every mistake is reported with its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.media import example

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import clip_key, clips_of, lacking_split, needed_splits, read_manifest, write_manifest

BARE: dict[str, object] = {"task": "unlabelled", "prompt": "", "answers": [], "split": "train"}


def line(number: int = 0, **changes: object) -> str:
    return json.dumps(dataclasses.asdict(example(number)) | changes)


def error_of(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(MirasolError) as error:
        read_manifest(path)
    return str(error.value)


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [example(0, start=0.5, end=2.0), example(1, answers=("ein Mädchen", "eins"), prompt="Wer 🎻?")]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    assert read_manifest(tmp_path / "manifest.jsonl") == rows


def test_a_clip_without_texts_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [example(0, **BARE | {"answers": ()})]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    assert read_manifest(tmp_path / "manifest.jsonl") == rows


def test_equal_examples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_manifest(tmp_path / name, [example(0), example(1)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_clip_is_all_examples_of_one_stretch_of_a_file() -> None:
    rows = [example(0, id="a"), example(0, id="b"), example(0, id="c", start=1.0), example(1)]
    assert [[e.id for e in clip.examples] for clip in clips_of(rows)] == [["a", "b"], ["c"], ["e1"]]


def test_a_clip_key_never_changes() -> None:
    assert clip_key("media/a.mp4", None, 2.0, "train") == "113d55226dcb1427"


def test_every_wrong_line_is_listed_at_once(tmp_path: Path) -> None:
    message = error_of(tmp_path / "m.jsonl", line(0), "{not json", line(1, split="dev"), line(2, answers=[]))
    assert f"{tmp_path / 'm.jsonl'}:2: not JSON" in message
    assert ":3: split: 'dev' is not one of train, val, test" in message
    assert ":4: answers: expected a list of at least one text, got []" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licens": "x"}, "unknown key 'licens'"),
        ({"start": 2, "end": 2}, "end 2 is not after start 2"),
        ({"start": "1"}, "start: expected seconds >= 0 or null, got '1'"),
        ({"end": float("nan")}, "end: expected seconds"),
        ({"start": True}, "start: expected seconds"),
        ({"task": "ask"}, "task: 'ask' is not one of caption, audio_class, qa"),
        ({"prompt": " "}, "prompt: is empty"),
        ({"group": 3}, "group: expected a text, got 3"),
        ({"answers": "yes"}, "answers: expected a list"),
        ({"options": ["yes"]}, "options: expected a list of at least two texts, or none, got ['yes']"),
        ({"options": ["yes", "no"]}, "options: 'thing 0', the first of the answers, is none of ['yes', 'no']"),
        (BARE | {"prompt": "Who?"}, "prompt: got 'Who?', a clip of task 'unlabelled' has no texts: expected none"),
        (BARE | {"answers": ["yes"]}, "answers: got ['yes'], a clip of task 'unlabelled' has no texts: expected none"),
        (BARE | {"answers": None}, "answers: got None, a clip of task 'unlabelled' has no texts: expected none"),
        (BARE | {"split": "test"}, "split: got 'test', a clip of task 'unlabelled' has no texts: expected 'train'"),
        (BARE | {"start": 2, "end": 2}, "end 2 is not after start 2"),
        ({"media": "/etc/passwd"}, "must be a path inside the manifest's folder"),
        ({"media": "media/../../x.mp4"}, "must be a path inside the manifest's folder"),
        ({"media": "http://host/x.mp4"}, "expected a path or a URL that begins with one of file://, s3://"),
        ({"media": "s3://bucket/../x.mp4"}, "a URL names one file"),
        ({"media": "file://a.zip::s3://b/x.zip"}, "a URL names one file"),
    ],
)
def test_a_wrong_value_is_told(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    assert message in error_of(tmp_path / "m.jsonl", line(0, **changes))


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    row = dataclasses.asdict(example(0))
    del row["split"]
    assert ":1: missing key 'split'" in error_of(tmp_path / "m.jsonl", json.dumps(row))


def test_an_id_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    assert ":2: id 'e0' repeats that of line 1" in error_of(tmp_path / "m.jsonl", line(0), line(0))


def test_a_source_video_in_two_splits_is_told_with_both_lines(tmp_path: Path) -> None:
    message = error_of(tmp_path / "m.jsonl", line(0, split="train"), line(1, group="g0", split="test"))
    assert ":2: group 'g0' is in split 'test' here and in 'train' in line 1" in message


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="mirasol world"):
        read_manifest(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize(
    ("splits", "lack"), [("train", "val"), ("val", "train"), ("train val", None), ("test", None), ("train test", "val")]
)
def test_a_training_lacks_a_split(splits: str, lack: str | None) -> None:
    found = lacking_split(needed_splits(splits.split(), texts=True), splits.split())
    assert found is None if lack is None else found is not None and found.startswith(f"the split {lack}: ")


def test_an_empty_manifest_is_an_error(tmp_path: Path) -> None:
    assert "holds no example" in error_of(tmp_path / "m.jsonl", "", "  ")


def test_options_are_written_only_where_there_are_some(tmp_path: Path) -> None:
    rows = [example(0), example(1, options=("thing 0", "thing 1"))]
    write_manifest(tmp_path / "m.jsonl", rows)
    first, second = (tmp_path / "m.jsonl").read_text().splitlines()
    assert "options" not in json.loads(first) and json.loads(second)["options"] == ["thing 0", "thing 1"]
    assert read_manifest(tmp_path / "m.jsonl") == rows
