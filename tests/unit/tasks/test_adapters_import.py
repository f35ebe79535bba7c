"""From the rows of a published set to a data folder: splits, media names, missing files, and the summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.annotations import counted, imported, write
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.tasks.base.importer import ImportOptions, for_val, import_set
from mirasol.tasks.registry import ADAPTERS


def questions(*videos: int, answer: str = "yes") -> list[dict[str, Any]]:
    return [{"answer": answer, "category_id": 1, "id": v, "question": "what is it?", "video_id": v} for v in videos]


def error_of(name: str, tmp_path: Path, files: dict[str, Any], media: list[str], **options: Any) -> str:
    with pytest.raises(MirasolError) as error:
        imported(name, tmp_path, files, media, **options)
    assert not (tmp_path / "data/manifest.jsonl").exists()
    return str(error.value)


def test_all_wrong_rows_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    wrong = [*questions(1), {"answer": "a", "category_id": 1, "id": 2, "question": "", "video_id": 2}]
    message = error_of("msrvtt-qa", tmp_path, {"train_qa.json": wrong, "test_qa.json": [*wrong, 7]}, [])
    assert message.startswith("3 error(s) in the annotations")
    assert "train_qa.json[1]: question: expected a text, got ''" in message
    assert "test_qa.json[1]: question" in message and "test_qa.json[2]: expected an object, got 7" in message


def test_a_row_of_another_width_is_told(tmp_path: Path) -> None:
    text = 'audiocap_id,youtube_id,start_time,caption\n1,a,2,"b\nc"\n2,a,3,b,c\n'
    with pytest.raises(MirasolError, match=r"train.csv:4: 4 columns in the header \(.*\), 5 here"):
        counted("audiocaps", tmp_path, {"train.csv": text})


def test_a_lacking_column_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"train.csv:1: no column 'caption', is it 'captions'"):
        counted("audiocaps", tmp_path, {"train.csv": "audiocap_id,youtube_id,start_time,captions\n"})


def test_another_encoding_is_told(tmp_path: Path) -> None:
    (write(tmp_path / "audiocaps", {}) / "val.csv").write_bytes(b"audiocap_id,\xff")
    with pytest.raises(MirasolError, match=r"val.csv: not UTF-8"):
        counted("audiocaps", tmp_path, {})


def test_a_folder_without_the_files_names_them(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"no file results_2M_train.csv or results_10M_train.csv or train.csv"):
        counted("webvid", tmp_path, {})


def test_files_that_are_absent_are_named_in_the_summary(tmp_path: Path) -> None:
    summary = counted("msrvtt-qa", tmp_path, {"val_qa.json": questions(6513)})
    assert (summary["absent"], summary["rows"]) == (["train", "test"], {"val": 1})


def test_a_split_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"no file train_qa.json"):
        counted("msrvtt-qa", tmp_path, {"val_qa.json": questions(1)}, splits=["train"])


def test_a_split_can_be_used_as_another(tmp_path: Path) -> None:
    files = {"val_qa.json": questions(1), "test_qa.json": questions(2)}
    (row,) = imported("msrvtt-qa", tmp_path, files, ["video1.mp4"], splits=["val=test"])
    assert row.split == "test"


def test_a_split_that_a_set_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="--split 'dev': expected one of train, val, test"):
        counted("msrvtt-qa", tmp_path, {}, splits=["dev"])


def test_val_is_made_of_train_by_group_where_a_set_has_none(tmp_path: Path) -> None:
    names = [f"{number:011d}" for number in range(200)]
    text = "".join(f"{name},{start},rapping,train\n" for name in names for start in (1, 20))
    summary = counted("vggsound", tmp_path, {"vggsound.csv": text})
    made = sum(map(for_val, names))
    assert 0 < made < 30
    assert summary["splits"]["val"] == {"examples": 2 * made, "clips": 2 * made, "groups": made}
    assert summary["val_from_train"] == f"one group in 20, by its hash: {2 * made} rows"


def test_a_source_video_that_the_published_splits_part_stays_where_it_was_published(tmp_path: Path) -> None:
    files = {
        "train_qa.json": [{"answer": "yes", "id": 1, "question": "what is it?", "video_id": 1}],
        "val_qa.json": [{"answer": "yes", "id": 2, "question": "what is it?", "video_id": 2}],
        "youtube_mapping.txt": "abc_1_2 vid1\nabc_3_4 vid2\n",
    }
    rows = imported("msvd-qa", tmp_path, files, ["vid1.avi", "vid2.avi"])
    assert [(r.group, r.split) for r in rows] == [("abc@train", "train"), ("abc@val", "val")]
    assert json.loads((tmp_path / "data/import.json").read_text())["groups_in_several_splits"] == ["abc"]


def test_missing_media_are_an_error_that_lists_them(tmp_path: Path) -> None:
    message = error_of("msrvtt-qa", tmp_path, {"train_qa.json": questions(*range(12))}, ["video0.mp4"])
    assert "11 of 12 rows have no file below" in message and "--skip-missing" in message
    assert "train_qa.json[1]: video1.*" in message and "... and 1 more" in message


def test_missing_media_can_be_skipped_and_are_listed(tmp_path: Path) -> None:
    files = {"train_qa.json": questions(1, 2, 2)}
    assert len(imported("msrvtt-qa", tmp_path, files, ["video1.mp4"], skip_missing=True)) == 1
    summary = json.loads((tmp_path / "data/import.json").read_text())
    assert (summary["skipped_rows"], summary["missing_media"]) == (2, ["video2.*"])


def test_nothing_but_missing_media_is_an_error(tmp_path: Path) -> None:
    message = error_of("msrvtt-qa", tmp_path, {"train_qa.json": questions(1)}, ["other.mp4"], skip_missing=True)
    assert "no row is left, 1 have no file" in message


def test_a_pattern_names_the_media(tmp_path: Path) -> None:
    files = {"train_qa.json": questions(7)}
    (row,) = imported("msrvtt-qa", tmp_path, files, ["a/007 x.bin", "video7.mp4"], patterns=["a/{video_id:03d} x.bin"])
    assert row.media == "media/a/007 x.bin"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{video}.mp4", "unknown field 'video': the fields of this set are video_id"),
        ("video.mp4", "names no field"),
        ("{video_id.mp4", "write a field as {video_id}"),
        ("../{video_id}.mp4", "names files below the folder of media, so without '..'"),
        ("{video_id.__class__}", "unknown field 'video_id.__class__'"),
        ("{video_id:zzz}", "does not fit {'video_id': 7}"),
    ],
)
def test_a_wrong_pattern_is_told(tmp_path: Path, pattern: str, message: str) -> None:
    assert message in error_of("msrvtt-qa", tmp_path, {"train_qa.json": questions(7)}, [], patterns=[pattern])


def test_a_pattern_that_finds_two_files_is_told(tmp_path: Path) -> None:
    message = error_of("msrvtt-qa", tmp_path, {"train_qa.json": questions(7)}, ["video7.mp4", "video7.wav"])
    assert "train_qa.json[0]: several files are named so, video7.mp4, video7.wav" in message


def test_a_star_finds_media_alone_and_stays_within_one_name(tmp_path: Path) -> None:
    media = ["video7.json", "video7.mp4.part", "video7.x/y.mp4", "video77.mp4", "video7.mkv"]
    (row,) = imported("msrvtt-qa", tmp_path, {"train_qa.json": questions(7)}, media)
    assert row.media == "media/video7.mkv"


def test_a_field_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    files = {
        "val_q.json": [{"video_name": "../x", "question": "b", "question_id": "q"}],
        "val_a.json": [{"answer": "no", "type": 3, "question_id": "q"}],
    }
    with pytest.raises(MirasolError, match=r"without '\.\.'"):
        counted("activitynet-qa", tmp_path, files, patterns=["{video_name}.mp4"])


def test_media_are_needed_but_in_a_dry_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"train_qa.json": questions(7)})
    with pytest.raises(MirasolError, match="or only count the rows with --dry-run"):
        import_set(ADAPTERS["msrvtt-qa"], folder, None, tmp_path / "data")


def test_a_dry_run_writes_nothing_and_lists_what_is_missing(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"train_qa.json": questions(7)})
    (tmp_path / "videos").mkdir()
    summary = import_set(
        ADAPTERS["msrvtt-qa"], folder, tmp_path / "videos", tmp_path / "data", ImportOptions(dry_run=True)
    )
    assert (summary["rows"], summary["missing_media"]) == ({"train": 1}, ["video7.*"])
    assert not (tmp_path / "data").exists()


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    """Of an import of four real files: with sound, without, the same bytes again in the test split, and damaged."""
    videos = tmp_path / "videos"
    write_media(videos / "video1.mp4", frames=4, sound=tone(0.5))
    write_media(videos / "video2.mp4", frames=4)
    (videos / "video3.mp4").write_bytes((videos / "video1.mp4").read_bytes())
    (videos / "video4.mp4").write_bytes(b"no film")
    files = {"train_qa.json": questions(1, 2, answer="dog"), "test_qa.json": questions(3, answer="cat") + questions(4)}
    folder = write(tmp_path / "a", files)
    return import_set(ADAPTERS["msrvtt-qa"], folder, videos, tmp_path / "data")


def test_media_without_sound_are_listed(summary: dict[str, Any]) -> None:
    assert summary["media_without_audio"] == ["video2.mp4"]


def test_media_that_cannot_be_opened_are_listed(summary: dict[str, Any]) -> None:
    (text,) = summary["media_unreadable"]
    assert text.startswith("video4.mp4: cannot be opened")


def test_equal_media_across_splits_are_listed(summary: dict[str, Any], tmp_path: Path) -> None:
    assert summary["duplicates_across_splits"] == [
        {
            "sha256": sha256_file(tmp_path / "videos/video1.mp4"),
            "media": {"video1.mp4": ["train"], "video3.mp4": ["test"]},
        }
    ]


def test_the_summary_counts_rows_splits_and_answers(summary: dict[str, Any]) -> None:
    assert summary["splits"]["train"] == {"examples": 2, "clips": 2, "groups": 2}
    assert summary["families"] == {"what": 4}
    assert summary["answers"] == {
        "distinct": 3,
        "known_from_train": {"test": 0.0},
        "most_common": [["dog", 2], ["cat", 1], ["yes", 1]],
    }


def test_the_summary_lies_beside_the_manifest_that_it_describes(summary: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads((tmp_path / "data/import.json").read_text()) == summary
    assert summary["manifest_sha256"] == sha256_file(tmp_path / "data/manifest.jsonl")


def test_importing_again_gives_the_same_bytes(summary: dict[str, Any], tmp_path: Path) -> None:
    before = (tmp_path / "data/import.json").read_bytes()
    import_set(ADAPTERS["msrvtt-qa"], tmp_path / "a", tmp_path / "videos", tmp_path / "data")
    assert (tmp_path / "data/import.json").read_bytes() == before


def test_a_failed_import_leaves_the_old_one(summary: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "a", {"train_qa.json": questions(99)})
    with pytest.raises(MirasolError, match="have no file"):
        import_set(ADAPTERS["msrvtt-qa"], tmp_path / "a", tmp_path / "videos", tmp_path / "data")
    assert sha256_file(tmp_path / "data/manifest.jsonl") == summary["manifest_sha256"]
    assert (tmp_path / "data/import.json").exists()
