"""`mirasol data check` and `look` on the command line: their output and exit status."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.media import example, write_media
from support.shards import TinyShards

from mirasol.cli.data import _summary
from mirasol.cli.main import main
from mirasol.tasks.base.writer import write_data


def mirasol(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command line in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["mirasol", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def shards(tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))


def test_a_sound_set(shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert mirasol(monkeypatch, "data", "check", "--shards", str(shards)) == 0
    assert "16 clips in 7 tars, all as they were written" in capsys.readouterr().out
    assert mirasol(monkeypatch, "data", "check", "--shards", str(shards), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "tars": 7,
        "clips": 16,
        "lost": [],
        "damaged": [],
        "remote": [],
        "changed_media": [],
        "sound": True,
    }


def test_lost_clips_are_counted_and_named_and_end_with_an_error(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(shards / "val-00000.tar", 1000)
    keys = [key for key, _ in json.loads((shards / "val-00000.tar.idx.json").read_text())["samples"]]
    assert mirasol(monkeypatch, "data", "check", "--shards", str(shards), "--json") == 2
    out, told = capsys.readouterr()
    found = json.loads(out)
    assert (found["lost"], found["sound"]) == (keys, False)
    assert "3 of 16 clips are lost" in told and all(key in told for key in keys)


def test_changed_media_behind_a_link_are_an_error(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_media(Path("videos/0.mp4"), frames=4)
    write_data(Path("data"), Path("videos"), [example(0)], "symlink", {})
    assert mirasol(monkeypatch, "data", "check", "--shards", str(shards)) == 0
    Path("videos/0.mp4").write_bytes(b"another")
    assert mirasol(monkeypatch, "data", "check", "--shards", str(shards)) == 2
    assert "media/0.mp4: has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--phase", "finetune", "--split", "val"), "without --split"),
        (("--start-sample", "3"), "--start-sample goes with --phase"),
        (("--split", "val", "--shard", "val-00000.tar"), "a shard is of one split"),
    ],
)
def test_options_of_look_that_contradict_each_other_are_told(
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    assert mirasol(monkeypatch, "data", "look", "--shards", str(shards), *options) == 2
    assert said in capsys.readouterr().err


def test_pages_are_printed(shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        mirasol(monkeypatch, "data", "look", "--shards", str(shards), "--shard", "test-00000.tar", "--out", "a.png")
        == 0
    )
    assert capsys.readouterr().out == "a.png\n" and Path("a.png").is_file()


@pytest.mark.parametrize(
    ("out", "advice"), [("data", "`dvc add data`"), ("other", "the pipeline reads data/, not this")]
)
def test_the_next_command_after_an_import_trains_on_it(
    out: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _summary(Path(out), {}, True)
    assert advice in capsys.readouterr().err
