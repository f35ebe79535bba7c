"""make_world: a folder that appears whole, is the same however it is made, and is never overwritten by accident."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import av
import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import clips_of, read_manifest
from mirasol.data.world import make as world
from mirasol.data.world.make import make_world, media_path, plan
from mirasol.data.world.questions import FAMILIES

CLIPS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "data"
    make_world(out, CLIPS, seed=1, workers=1)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_validation_is_a_fortieth_and_test_three_fortieths() -> None:
    items = plan(12000)
    assert [sum(s == split for s, _ in items) for split in ("train", "val", "test")] == [12000, 300, 900]


def test_the_report_counts_what_was_written(tmp_path: Path) -> None:
    report = make_world(tmp_path / "data", CLIPS, workers=1)
    media = list((tmp_path / "data" / "media").rglob("*.mp4"))
    assert report == {
        "clips": {"train": CLIPS, "val": 4, "test": 12},
        "examples": len((tmp_path / "data" / "manifest.jsonl").read_text().splitlines()),
        "bytes": sum(p.stat().st_size for p in media),
        "written": True,
    }


def test_the_manifest_is_valid_and_names_every_file(made: Path) -> None:
    rows = read_manifest(made / "manifest.jsonl")
    assert {r.media for r in rows} == {p for p in contents(made) if p.endswith(".mp4")}
    assert len(clips_of(rows)) == CLIPS + 4 + 12


def test_groups_of_novel_clips_say_so(made: Path) -> None:
    groups = {r.group for r in read_manifest(made / "manifest.jsonl") if r.group.startswith("novel-")}
    assert groups == {"novel-test-00003", "novel-test-00007", "novel-test-00011"}


def test_every_family_of_the_manifest_is_described(made: Path) -> None:
    families = json.loads((made / "families.json").read_text())
    assert set(families) == set(FAMILIES)
    assert all(set(f) == {"kind", "needs", "chance", "muted", "blanked", "shuffled"} for f in families.values())
    assert {r.family for r in read_manifest(made / "manifest.jsonl")} <= set(families) | {""}


def test_the_files_are_videos_of_two_seconds(made: Path) -> None:
    with av.open(str(made / media_path("train", 0))) as container:
        assert container.duration == 2 * av.time_base


def test_two_processes_write_the_same_bytes_as_one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "BATCH", 5)
    make_world(tmp_path / "data", CLIPS, seed=1, workers=2)
    assert contents(tmp_path / "data") == contents(made)


def test_another_seed_gives_another_world(made: Path, tmp_path: Path) -> None:
    make_world(tmp_path / "data", CLIPS, seed=2, workers=1)
    assert (tmp_path / "data/manifest.jsonl").read_bytes() != (made / "manifest.jsonl").read_bytes()


def test_the_same_world_is_left_as_it_is(made: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    report = make_world(made, CLIPS, seed=1, workers=1)
    assert report["written"] is False and report["bytes"] > 0 and report["examples"] > 0
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*")} == before


@pytest.mark.parametrize("clips, seed", [(CLIPS + 1, 1), (CLIPS, 2)])
def test_another_world_is_not_overwritten(made: Path, clips: int, seed: int) -> None:
    before = contents(made)
    with pytest.raises(MirasolError, match=r"holds something else.*--force"):
        make_world(made, clips, seed, workers=1)
    assert contents(made) == before


def test_a_world_with_a_missing_or_changed_file_is_another(tmp_path: Path) -> None:
    out = tmp_path / "data"
    make_world(out, CLIPS, workers=1)
    first = out / media_path("train", 0)
    whole = first.read_bytes()
    for change in (lambda: first.unlink(), lambda: first.write_bytes(whole[:-1])):
        change()
        with pytest.raises(MirasolError, match="holds something else"):
            make_world(out, CLIPS, workers=1)
        first.write_bytes(whole)
    (out / "families.json").write_text("{}")
    with pytest.raises(MirasolError, match="holds something else"):
        make_world(out, CLIPS, workers=1)


def test_force_replaces_what_was_there(made: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("gone afterwards")
    make_world(tmp_path / "data", CLIPS, workers=1, force=True)
    assert contents(tmp_path / "data") == contents(made)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_empty_folder_is_filled(made: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make_world(tmp_path / "data", CLIPS, workers=1)
    assert contents(tmp_path / "data") == contents(made)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, *_: object) -> int:
        (folder / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(world, "write_clips", full)
    with pytest.raises(MirasolError, match="disk is full"):
        make_world(tmp_path / "data", CLIPS, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(MirasolError, match="permission denied"):
        make_world(out, CLIPS, workers=1, force=True)
    assert contents(out) == {"mine.txt": b"kept"}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"seed": -1}, {"workers": 0}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(MirasolError, match="needs clips >= 1, seed >= 0, workers >= 1"):
        make_world(tmp_path / "data", **wrong)
