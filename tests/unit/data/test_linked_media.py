"""Media that stay where they are, behind a link: the same shards as from copies, and no change goes unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.media import TINY_CLIP, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.linked_media import changed_media
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.tasks.generic import import_generic

ONE = ShardsSpec(workers=1)
ROWS = "media,answers,split\na.mp4,dog,train\ndeep/b.mp4,cat,train\nc.mp4,cow,val\n"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for number, name in enumerate(("a.mp4", "deep/b.mp4", "c.mp4")):
        write_media(folder / name, frames=4, size=(16, 16), sound=tone(0.5, hertz=200 + 100 * number))
    (tmp_path / "rows.csv").write_text(ROWS)
    return folder


def imported(media: Path, link: str = "symlink", name: str = "data") -> Path:
    import_generic(media.parent / "rows.csv", media, media.parent / name, link=link)
    return media.parent / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_only_small_files_are_written_and_the_shards_are_those_of_copies(media: Path, tmp_path: Path) -> None:
    linked, copied = imported(media), imported(media, "copy", "copied")
    assert sorted(path.name for path in linked.iterdir()) == ["import.json", "manifest.jsonl", "media", "media.jsonl"]
    assert (linked / "media").is_symlink()
    for data in (linked, copied):
        build_shards(data, tmp_path / f"shards {data.name}", TINY_CLIP, ONE)
    assert contents(tmp_path / "shards data") == contents(tmp_path / "shards copied")


def test_a_changed_source_stops_the_run_and_imported_again_is_made_alone(media: Path, tmp_path: Path) -> None:
    data = imported(media)
    build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    write_media(media / "deep/b.mp4", frames=4, size=(16, 16), sound=tone(0.5, hertz=900))
    with pytest.raises(MirasolError, match=r"1 media are not what(.|\n)*media/deep/b.mp4: has changed$"):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    imported(media)
    assert build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)["reused"] == 2


def test_lost_and_unlisted_media_are_told_together(media: Path) -> None:
    data = imported(media)
    (media / "c.mp4").unlink()
    assert changed_media(data) == ["media/c.mp4: is gone"]
    assert changed_media(data, ["media/c.mp4", "media/d.mp4"]) == ["media/c.mp4: is gone", "media/d.mp4: is not listed"]


def test_another_time_of_the_same_bytes_is_no_change(media: Path) -> None:
    data = imported(media)
    os.utime(media / "a.mp4", (1, 1))
    assert changed_media(data) == []


def test_importing_again_reads_only_what_is_new(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = imported(media)
    before = (data / "media.jsonl").read_bytes()
    monkeypatch.setattr("mirasol.data.linked_media.sha256_file", lambda path: pytest.fail(f"{path} was read"))
    imported(media, link="")  # and as before: behind the link
    assert (data / "media.jsonl").read_bytes() == before


def test_a_link_that_leads_nowhere_says_how_to_mend_it(media: Path, tmp_path: Path) -> None:
    data = imported(media)
    media.rename(tmp_path / "elsewhere")
    with pytest.raises(MirasolError, match=r"leads nowhere(.|\n)*`ln -sfn FOLDER .*data/media`"):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    (data / "media").unlink()
    (data / "media").symlink_to(tmp_path / "elsewhere")
    assert changed_media(data) == []


@pytest.mark.parametrize(("first", "then"), [("symlink", "copy"), ("symlink", "hardlink"), ("copy", "symlink")])
def test_copies_and_links_are_not_mixed(media: Path, first: str, then: str) -> None:
    imported(media, first)
    with pytest.raises(MirasolError, match=r"data/media (is a link to media elsewhere|holds media itself)"):
        imported(media, then)


def test_a_listing_that_is_none_is_told_with_its_line(media: Path) -> None:
    data = imported(media)
    with (data / "media.jsonl").open("a") as file:
        file.write('{"media": "media/x.mp4"}\n')
    with pytest.raises(MirasolError, match=r"media\.jsonl:4: no line of a listing"):
        changed_media(data)
