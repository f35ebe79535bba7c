"""Importing your own videos: defaults, splits by group, and every mistake with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.media import SHARED, TINY_CLIP

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import CAPTION_PROMPT, CLASSIFY_PROMPT, Example, read_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.clip import ClipSpec
from mirasol.tasks.base.splits import split_of
from mirasol.tasks.generic import import_generic


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "my videos"
    for name in ("a.mp4", "b.mp4", "deep/c ü.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def imported(tmp_path: Path, media: Path, text: str, name: str = "notes.csv", **options: object) -> list[Example]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    import_generic(tmp_path / name, media, tmp_path / "data", **options)
    return read_manifest(tmp_path / "data/manifest.jsonl")


def error_of(tmp_path: Path, media: Path, text: str, name: str = "notes.csv", **options: object) -> str:
    with pytest.raises(MirasolError) as error:
        imported(tmp_path, media, text, name, **options)
    assert not (tmp_path / "data/manifest.jsonl").exists()
    return str(error.value)


FULL = """media,start,end,prompt,answers,split,group,task,family,licence,id
a.mp4,1,2.5,"Who sings, and why?",Ada|she,train,tape 1,qa,who,CC0,x1
deep/c ü.mp4,,,,a song,test,tape 2,caption,,,x2
"""


def test_every_column_arrives(tmp_path: Path, media: Path) -> None:
    first, second = imported(tmp_path, media, FULL)
    assert first == Example(
        "x1", "media/a.mp4", 1.0, 2.5, "qa", "Who sings, and why?", ("Ada", "she"), "train", "tape 1", "who", "CC0"
    )
    assert (second.media, second.start, second.prompt) == ("media/deep/c ü.mp4", None, CAPTION_PROMPT)
    assert (tmp_path / "data/media/deep/c ü.mp4").read_bytes() == b"deep/c \xc3\xbc.mp4"


def test_only_line_ends_end_a_row(tmp_path: Path, media: Path) -> None:
    (row,) = imported(tmp_path, media, "media,answers,prompt\r\na.mp4,dog,first\u2028second\x0cthird\r\n")
    assert row.prompt == "first\u2028second\x0cthird"


def test_media_and_answers_are_enough(tmp_path: Path, media: Path) -> None:
    (row,) = imported(tmp_path, media, "media,answers\na.mp4,dog\n")
    assert row == Example("notes-000000", "media/a.mp4", None, None, "qa", CLASSIFY_PROMPT, ("dog",), "train", "a.mp4")


def test_options_of_a_multiple_choice_are_separated_like_answers(tmp_path: Path, media: Path) -> None:
    (row,) = imported(tmp_path, media, "media,answers,options\na.mp4,dog,cat|dog|cow\n")
    assert (row.answers, row.options) == (("dog",), ("cat", "dog", "cow"))


def test_jsonl_says_the_same_as_csv(tmp_path: Path, media: Path) -> None:
    rows = [
        {"media": "a.mp4", "start": 1, "end": 2.5, "prompt": "Who sings, and why?", "answers": ["Ada", "she"]}
        | {"split": "train", "group": "tape 1", "family": "who", "licence": "CC0", "id": "x1"},
        {
            "media": "deep/c ü.mp4",
            "answers": "a song",
            "split": "test",
            "group": "tape 2",
            "task": "caption",
            "id": "x2",
        },
    ]
    from_json = imported(tmp_path, media, "\n".join(map(json.dumps, rows)), "notes.jsonl")
    assert from_json == imported(tmp_path, media, FULL)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path, media: Path) -> None:
    assert len(imported(tmp_path, media, "\ufeffmedia,answers\r\na.mp4,dog\r\n\r\nb.mp4,cat\r\n")) == 2


def test_splits_go_by_group_and_are_the_same_everywhere() -> None:
    splits = [split_of(f"group {i}") for i in range(1000)]
    assert splits[:5] == ["train", "train", "train", "train", "train"]
    assert 750 < splits.count("train") < 850 and 60 < splits.count("val") < 140


def test_a_group_with_a_split_takes_its_other_rows_along(tmp_path: Path, media: Path) -> None:
    text = "media,answers,group,split\na.mp4,dog,g,\nb.mp4,cat,g,test\n"
    assert [e.split for e in imported(tmp_path, media, text)] == ["test", "test"]


def test_a_group_in_two_splits_is_told(tmp_path: Path, media: Path) -> None:
    text = "media,answers,group,split\na.mp4,dog,g,val\nb.mp4,cat,g,test\n"
    message = error_of(tmp_path, media, text)
    assert "notes.csv:3: group 'g' is in the split 'test' here and in 'val' in line 2: choose one" in message


def test_missing_files_are_told_at_once(tmp_path: Path, media: Path) -> None:
    text = "media,answers\n" + "".join(f"no{i}.mp4,dog\n" for i in range(12)) + "a.mp4,dog\n"
    message = error_of(tmp_path, media, text)
    assert "12 of 13 rows name a file that is not below" in message and "--skip-missing" in message
    assert "notes.csv:2: no0.mp4" in message and "notes.csv:11: no9.mp4" in message
    assert "no10.mp4" not in message and "... and 2 more" in message
    assert not (tmp_path / "data").exists()


def test_missing_files_can_be_skipped(tmp_path: Path, media: Path) -> None:
    (tmp_path / "n.csv").write_text("media,answers\nno.mp4,dog\na.mp4,cat\n")
    summary = import_generic(tmp_path / "n.csv", media, tmp_path / "data", skip_missing=True)
    assert (summary["examples"], summary["skipped_rows"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("media,answer\na.mp4,dog\n", "notes.csv:1: unknown column 'answer', did you mean 'answers'?"),
        ("answers\ndog\n", "no column 'media'"),
        ("", "no column 'media'"),
        ("media,answers\na.mp4,\n", "notes.csv:2: answers: expected a list of at least one text"),
        (
            "media,answers,start\na.mp4,dog,soon\n",
            "notes.csv:2: start: expected seconds, as 12.5 or as hours:minutes:seconds, got 'soon'",
        ),
        ("media,answers,start,end\na.mp4,dog,3,2\n", "notes.csv:2: end 2 is not after start 3"),
        ("media,answers,split\na.mp4,dog,dev\n", "notes.csv:2: split: 'dev' is not one of train, val, test"),
        ("media,answers\n../a.mp4,dog\n", "notes.csv:2: media: '../a.mp4' must be a path inside"),
        ("media,answers\n/a.mp4,dog\n", "without '..'; write it relative to --media"),
        ("media,answers,id\na.mp4,dog,x\nb.mp4,cat,x\n", "notes.csv:3: id 'x' is already in line 2"),
        ("media,answers\na.mp4,dog,cat\n", "notes.csv:2: 2 columns in the header (media, answers), 3 here"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, media: Path, text: str, message: str) -> None:
    assert message in error_of(tmp_path, media, text)


def test_values_of_the_wrong_kind_are_told(tmp_path: Path, media: Path) -> None:
    row = json.dumps({"media": ["a.mp4"], "answers": [1], "group": {}, "task": []})
    message = error_of(tmp_path, media, row, "notes.jsonl")
    assert all(f"notes.jsonl:1: {field}: " in message for field in ("media", "answers", "group", "task"))


def test_a_line_that_is_no_json_is_told(tmp_path: Path, media: Path) -> None:
    assert "notes.jsonl:2: not JSON" in error_of(
        tmp_path, media, '{"media": "a.mp4", "answers": ["x"]}\n{oops', "notes.jsonl"
    )


def test_another_kind_of_file_is_refused(tmp_path: Path, media: Path) -> None:
    assert "a .csv file with a header, or a .jsonl file" in error_of(tmp_path, media, "", "notes.xlsx")


def test_hard_links_take_no_room(tmp_path: Path, media: Path) -> None:
    imported(tmp_path, media, "media,answers\na.mp4,dog\n", link="hardlink")
    assert (tmp_path / "data/media/a.mp4").stat().st_ino == (media / "a.mp4").stat().st_ino


def test_importing_again_copies_only_what_is_new(tmp_path: Path, media: Path) -> None:
    imported(tmp_path, media, "media,answers\na.mp4,dog\n")
    before = (tmp_path / "data/media/a.mp4").stat().st_ino
    summary = import_generic(tmp_path / "notes.csv", media, tmp_path / "data")
    assert (tmp_path / "data/media/a.mp4").stat().st_ino == before
    (tmp_path / "notes.csv").write_text("media,answers\nb.mp4,dog\n")
    summary = import_generic(tmp_path / "notes.csv", media, tmp_path / "data")
    assert (summary["media"], summary["unused_media"]) == (1, 1)


def test_the_built_in_world_is_not_overwritten(tmp_path: Path, media: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/families.json").write_text("{}")
    assert "holds the built-in world" in error_of(tmp_path, media, "media,answers\na.mp4,dog\n")


@pytest.mark.skipif(not (SHARED / "drone").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_real_videos_without_sound_become_shards(tmp_path: Path) -> None:
    names = sorted(p.name for p in (SHARED / "drone/video").glob("V_*_00[1-3].mp4"))
    rows = [f"{n},{n.split('_')[1].lower()},{('train', 'val')[i % 2]}" for i, n in enumerate(names)]
    (tmp_path / "drones.csv").write_text("media,answers,split\n" + "\n".join(rows) + "\n")
    import_generic(tmp_path / "drones.csv", SHARED / "drone/video", tmp_path / "data")
    report = build_shards(tmp_path / "data", tmp_path / "shards", ClipSpec(), ShardsSpec(workers=1))
    assert (report["clips"], report["without_audio"], report["rejected"]) == (len(names), len(names), 0)


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_real_sounds_without_a_picture_become_shards(tmp_path: Path) -> None:
    names = sorted(p.name for p in (SHARED / "fsdd/recordings").glob("*_george_[0-3].wav"))
    rows = [f"{n},{n[0]},{('train', 'val')[i % 2]}" for i, n in enumerate(names)]
    (tmp_path / "digits.csv").write_text("media,answers,split\n" + "\n".join(rows) + "\n")
    import_generic(tmp_path / "digits.csv", SHARED / "fsdd/recordings", tmp_path / "data")
    report = build_shards(tmp_path / "data", tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
    assert (report["clips"], report["without_video"], report["without_audio"]) == (len(names), len(names), 0)


@pytest.mark.parametrize("mark", ";\t")
def test_semicolons_and_tabs_separate_too(tmp_path: Path, media: Path, mark: str) -> None:
    (row,) = imported(tmp_path, media, f"media{mark}answers\na.mp4{mark}a dog, running\n")
    assert row.answers == ("a dog, running",)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2.5", 2.5), ("00:01", 1.0), ("1:02:03.5", 3723.5), ("1:2:3:4", None), ("-1:00", None)]
)
def test_times_are_seconds_or_clock_times(tmp_path: Path, media: Path, text: str, seconds: float | None) -> None:
    rows = f"media,answers,end\na.mp4,dog,{text}\n"
    if seconds is None:
        assert f"notes.csv:2: end: expected seconds, as 12.5 or as hours:minutes:seconds, got '{text}'" in error_of(
            tmp_path, media, rows
        )
    else:
        assert imported(tmp_path, media, rows)[0].end == seconds


def test_a_url_is_told_where_it_belongs(tmp_path: Path, media: Path) -> None:
    with pytest.raises(MirasolError, match=r"rows of them go into manifest\.jsonl"):
        imported(tmp_path, media, "media,answers\ns3://bucket/a.mp4,dog\n")
