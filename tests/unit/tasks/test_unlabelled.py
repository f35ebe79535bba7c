"""Importing media without annotations: which files, cut into which clips, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.media import TINY_CLIP, write_media
from typer.testing import CliRunner

from mirasol.cli.main import app
from mirasol.core.errors import MirasolError
from mirasol.data.manifest import UNLABELLED, Example, read_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.tasks.generic import import_generic, read_generic


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three annotated files of half a second, one of each split."""
    folder = tmp_path / "media"
    for number, name in enumerate(("train", "val", "test")):
        write_media(folder / f"{name}.mp4", frames=4, size=(16, 16 + 2 * number))
    return folder


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A file of two seconds and one that cannot be read, in another folder."""
    write_media(tmp_path / "more" / "deep" / "long.mp4", frames=16, size=(16, 16))
    (tmp_path / "more" / "broken.mp4").write_text("no video")
    (tmp_path / "more" / "notes.txt").write_text("no medium")
    return tmp_path / "more"


def imported(tmp_path: Path, media: Path, folder: Path, **options: Any) -> tuple[list[Example], dict[str, Any]]:
    """The rows without texts, and what the summary says about them."""
    notes = tmp_path / "notes.csv"
    notes.write_text("media,answers,split\n" + "".join(f"{s}.mp4,{s},{s}\n" for s in ("train", "val", "test")))
    summary = import_generic(notes, media, tmp_path / "data", unlabelled=folder, **options)
    rows = read_manifest(tmp_path / "data/manifest.jsonl")
    return [row for row in rows if row.task == UNLABELLED], summary["unlabelled"]


def test_a_long_file_becomes_clips_as_long_as_the_longest_annotated_one(
    tmp_path: Path, media: Path, more: Path
) -> None:
    rows, _ = imported(tmp_path, media, more)
    assert [(row.start, row.end) for row in rows] == [(None, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, None)]


def test_they_are_of_train_without_texts_and_of_one_group_a_file(tmp_path: Path, media: Path, more: Path) -> None:
    rows, _ = imported(tmp_path, media, more)
    assert {(row.split, row.prompt, row.answers) for row in rows} == {("train", "", ())}
    assert len({row.group for row in rows}) == 1 and len({row.id for row in rows}) == 4


def test_files_from_elsewhere_come_along(tmp_path: Path, media: Path, more: Path) -> None:
    rows, _ = imported(tmp_path, media, more)
    assert {row.media for row in rows} == {"media/unlabelled/deep/long.mp4"}
    assert (tmp_path / "data" / rows[0].media).read_bytes() == (more / "deep/long.mp4").read_bytes()


def test_unreadable_files_are_left_out_and_listed(tmp_path: Path, media: Path, more: Path) -> None:
    _, facts = imported(tmp_path, media, more)
    assert facts["files"] == 1 and "broken.mp4" in facts["unreadable"][0]


def test_annotated_files_are_not_taken_twice(tmp_path: Path, media: Path) -> None:
    write_media(media / "new.mp4", frames=4, size=(16, 32))
    rows, facts = imported(tmp_path, media, media)
    assert ([row.media for row in rows], facts["annotated"]) == (["media/new.mp4"], 3)


def test_a_copy_of_an_annotated_file_is_not_taken(tmp_path: Path, media: Path, more: Path) -> None:
    shutil.copy(media / "test.mp4", more / "again.mp4")
    _, facts = imported(tmp_path, media, more)
    assert (facts["files"], facts["annotated"]) == (1, 1)


def test_a_folder_without_media_is_refused(tmp_path: Path, media: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MirasolError, match=r"no media file below this folder, expected names that end in .*\.mp4"):
        imported(tmp_path, media, tmp_path / "empty")


def test_a_folder_with_nothing_new_is_refused(tmp_path: Path, media: Path) -> None:
    with pytest.raises(MirasolError, match="none of the 3 media is left, 3 are annotated"):
        imported(tmp_path, media, media)


def test_a_link_cannot_reach_files_from_elsewhere(tmp_path: Path, media: Path, more: Path) -> None:
    with pytest.raises(MirasolError, match="is not below"):
        imported(tmp_path, media, more, link="symlink")


def test_media_without_any_annotation_become_shards_of_train_alone(tmp_path: Path, more: Path) -> None:
    import_generic(None, more, tmp_path / "data", unlabelled=more)
    report = build_shards(tmp_path / "data", tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
    assert report["splits"] == {"train": 1, "val": 0, "test": 0}


def test_a_row_of_the_annotations_may_say_that_a_clip_has_no_texts(tmp_path: Path, media: Path) -> None:
    notes = tmp_path / "own.csv"
    notes.write_text("media,answers,task\ntrain.mp4,,unlabelled\nval.mp4,yes,\ntest.mp4,no,\n")
    import_generic(notes, media, tmp_path / "data")
    assert read_manifest(tmp_path / "data/manifest.jsonl")[0].task == UNLABELLED


def test_a_clip_without_texts_in_a_group_of_val_says_so(tmp_path: Path, media: Path) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text("media,answers,task,group,split\ntrain.mp4,,unlabelled,a,\nval.mp4,yes,,a,val\n")
    with pytest.raises(MirasolError, match=r"notes\.csv:2: a clip without texts is for training, but its group 'a'"):
        read_generic(notes, media)


def test_the_command_line_takes_them(tmp_path: Path, media: Path, more: Path) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text("media,answers,split,set\n" + "".join(f"{s}.mp4,{s},{s},mine\n" for s in ("train", "val", "test")))
    import_generic(notes, media, tmp_path / "data")
    words = ["data", "import", "generic", "--unlabelled", str(more), "--append", "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception
    rows = read_manifest(tmp_path / "data/manifest.jsonl")
    assert [row.set for row in rows if row.task == UNLABELLED] == ["generic"]


def appended(tmp_path: Path, media: Path, folder: Path) -> list[Example]:
    """The rows without texts after a second data set was imported with the clips of ``folder``."""
    (tmp_path / "second").mkdir()
    write_media(tmp_path / "second" / "other.mp4", frames=4, size=(16, 64))
    notes = tmp_path / "second.csv"
    notes.write_text("media,answers,split,set\nother.mp4,other,train,second\n")
    import_generic(notes, tmp_path / "second", tmp_path / "data", unlabelled=folder, append=True)
    return [row for row in read_manifest(tmp_path / "data/manifest.jsonl") if row.task == UNLABELLED]


def test_the_same_clips_come_once_with_two_data_sets(tmp_path: Path, media: Path, more: Path) -> None:
    rows, _ = imported(tmp_path, media, more)
    assert [row.id for row in appended(tmp_path, media, more)] == [row.id for row in rows]


def test_another_file_of_the_same_name_is_refused(tmp_path: Path, media: Path, more: Path) -> None:
    imported(tmp_path, media, more)
    write_media(more / "deep" / "long.mp4", frames=16, size=(32, 32))
    with pytest.raises(MirasolError, match=r"unlabelled/deep/long\.mp4 is another file in"):
        appended(tmp_path, media, more)
