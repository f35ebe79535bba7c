"""A second data set in a data folder: names of the sets, and every collision refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.annotations import write
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, read_manifest
from mirasol.tasks.base.importer import import_set
from mirasol.tasks.generic import import_generic
from mirasol.tasks.registry import ADAPTERS


def medium(path: Path, hertz: float = 300) -> Path:
    return write_media(path, frames=4, size=(16, 16), sound=tone(0.5, hertz=hertz))


def first(tmp_path: Path) -> Path:
    """A folder with MSRVTT-QA: videos 1 and 2."""
    rows = [{"answer": "yes", "category_id": 1, "id": v, "question": "what?", "video_id": v} for v in (1, 2)]
    annotations = write(tmp_path / "msrvtt", {"train_qa.json": rows[:1], "val_qa.json": rows[1:]})
    for number in (1, 2):
        medium(tmp_path / f"videos/video{number}.mp4")
    import_set(ADAPTERS["msrvtt-qa"], annotations, tmp_path / "videos", tmp_path / "data")
    return tmp_path / "data"


def append(tmp_path: Path, text: str, **options: Any) -> list[Example]:
    medium(tmp_path / "mine/a.mp4", hertz=500)
    (tmp_path / "notes.csv").write_text(text)
    import_generic(tmp_path / "notes.csv", tmp_path / "mine", tmp_path / "data", append=True, **options)
    return read_manifest(tmp_path / "data/manifest.jsonl")


def refusal(tmp_path: Path, text: str, **options: Any) -> str:
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    with pytest.raises(MirasolError) as error:
        append(tmp_path, text, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before
    return str(error.value)


def test_one_set_alone_has_no_name(tmp_path: Path) -> None:
    assert '"set"' not in (first(tmp_path) / "manifest.jsonl").read_text()


def test_each_row_gets_the_name_of_its_set(tmp_path: Path) -> None:
    data = first(tmp_path)
    alone = json.loads((data / "import.json").read_text())
    rows = append(tmp_path, "media,answers,split\na.mp4,dog,train\n")
    assert [(e.set, e.media) for e in rows] == [
        ("msrvtt-qa", "media/video1.mp4"), ("msrvtt-qa", "media/video2.mp4"), ("generic", "media/a.mp4")
    ]  # fmt: skip
    assert all((data / e.media).is_file() for e in rows)
    summary = json.loads((data / "import.json").read_text())
    assert list(summary["sets"]) == ["generic", "msrvtt-qa"] and summary["examples"] == 3
    assert summary["sets"]["msrvtt-qa"]["used_as"] == alone["used_as"]
    assert summary["unused_media"] == 0 and summary["media_unreadable"] == []


def test_a_third_set_with_its_own_names(tmp_path: Path) -> None:
    first(tmp_path)
    append(tmp_path, "media,answers,split,id\na.mp4,dog,train,x\n")
    rows = append(tmp_path, "media,answers,split,set\na.mp4,dog,train,mine\n")
    assert [e.set for e in rows] == ["msrvtt-qa", "msrvtt-qa", "generic", "mine"]
    assert list(json.loads((tmp_path / "data/import.json").read_text())["sets"]) == ["generic", "mine", "msrvtt-qa"]


def test_a_set_of_the_same_name_is_refused(tmp_path: Path) -> None:
    first(tmp_path)
    append(tmp_path, "media,answers,split,id\na.mp4,dog,train,x\n")
    assert "already holds the data set generic" in refusal(tmp_path, "media,answers,split\na.mp4,dog,train\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("media,answers,split,id\na.mp4,dog,train,msrvtt-1\n", "id 'msrvtt-1' is also an id of msrvtt-qa"),
        ("media,answers,split,group\na.mp4,dog,test,video1\n", "group 'video1' is in split 'test' and in 'train' of"),
        ("media,answers,split\nvideo1.mp4,dog,train\n", "media/video1.mp4 is another file in msrvtt-qa"),
        ("media,answers,split,set\na.mp4,dog,train,a b\n", "set: 'a b' has other characters"),
    ],
)
def test_collisions_are_refused(tmp_path: Path, text: str, message: str) -> None:
    first(tmp_path)
    medium(tmp_path / "mine/video1.mp4", hertz=700)
    assert message in refusal(tmp_path, text)


def test_sets_may_share_a_file(tmp_path: Path) -> None:
    first(tmp_path)
    medium(tmp_path / "mine/video1.mp4")
    rows = append(tmp_path, "media,answers,split,group\nvideo1.mp4,dog,train,video1\n")
    assert rows[-1].media == rows[0].media


def test_an_empty_folder_has_nothing_to_add_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "import the first data set without --append" in refusal(tmp_path, "media,answers\na.mp4,dog\n")


def test_media_behind_a_link_are_not_mixed_with_others(tmp_path: Path) -> None:
    first(tmp_path)
    (tmp_path / "data/media").rename(tmp_path / "elsewhere")
    (tmp_path / "data/media").symlink_to(tmp_path / "elsewhere")
    assert "is a link to other media" in refusal(tmp_path, "media,answers,split\na.mp4,dog,train\n")
