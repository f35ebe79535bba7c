"""Importing tars in the WebDataset layout: samples become rows, and everything left out is listed with its reason."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.media import TINY_CLIP, tone, write_media
from webdataset import TarWriter

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import CAPTION_PROMPT, read_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.tasks import webdataset as importer
from mirasol.tasks.base.splits import split_of
from mirasol.tasks.webdataset import import_webdataset

Pack = Callable[..., Path]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("media")
    write_media(folder / "a.mp4", frames=4, size=(16, 16), sound=tone(0.5))
    write_media(folder / "a.mkv", frames=4, size=(16, 16))
    write_media(folder / "a.flac", sound=tone(0.5))
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Write samples, each {suffix: bytes} by its key, to a tar."""

    def write(name: str, **samples: dict[str, Any]) -> Path:
        with TarWriter(str(tmp_path / name), encoder=False) as tar:
            for key, files in samples.items():
                tar.write({"__key__": key} | files)
        return tmp_path / name

    return write


def summary_of(tmp_path: Path, *tars: Path | str, **options: Any) -> dict[str, Any]:
    return import_webdataset([str(tar) for tar in tars], tmp_path / "data", **({"split": "train"} | options))


def test_videos_and_sounds_become_rows(tmp_path: Path, media: dict[str, bytes], pack: Pack) -> None:
    pack("00000.tar", k0={"mp4": media["mp4"], "txt": b" a dog \n"}, k1={"mkv": media["mkv"], "json": b'{"text": "x"}'})
    pack("00001.tar", k2={"flac": media["flac"], "json": b'{"caption": "a bell"}', "txt": b"other"})
    found = summary_of(tmp_path, f"{tmp_path}/{{00000..00001}}.tar")
    rows = read_manifest(tmp_path / "data/manifest.jsonl")
    assert [(e.id, e.media, e.answers, e.group) for e in rows] == [
        ("k0", "media/k0.mp4", ("a dog",), "k0"),
        ("k1", "media/k1.mkv", ("x",), "k1"),
        ("k2", "media/k2.flac", ("a bell",), "k2"),
    ]
    assert {(e.task, e.prompt, e.split) for e in rows} == {("caption", CAPTION_PROMPT, "train")}
    assert (tmp_path / "data/media/k0.mp4").read_bytes() == media["mp4"]
    assert (found["tars"], found["examples"], found["skipped"], found["broken_tars"]) == (2, 3, [], [])
    assert found["media_without_audio"] == ["k1.mkv"]
    assert json.loads((tmp_path / "data/import.json").read_text())["set"] == "webdataset"
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["import.json", "manifest.jsonl", "media"]


def test_shards_can_be_made_of_them(tmp_path: Path, media: dict[str, bytes], pack: Pack) -> None:
    tar = pack("a.tar", **{f"deep/{i}": {"mp4": media["mp4"], "txt": b"a dog"} for i in range(20)})
    import_webdataset([str(tar)], tmp_path / "data")
    build_shards(tmp_path / "data", tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
    shards = ShardDataset(tmp_path / "shards", "val")
    assert [e["answers"] for e in shards.read(0).meta["examples"]] == [["a dog"]]
    assert shards.read(0).video is not None and shards.read(0).audio is not None


def test_splits_and_the_caption_s_key_are_chosen(tmp_path: Path, media: dict[str, bytes], pack: Pack) -> None:
    samples = {f"k{i}": {"flac": media["flac"], "json": b'{"caption": "x", "alt": "y"}'} for i in range(40)}
    summary_of(tmp_path, pack("a.tar", **samples), split="hash", caption_key="alt")
    rows = read_manifest(tmp_path / "data/manifest.jsonl")
    assert {e.answers for e in rows} == {("y",)}
    assert [e.split for e in rows] == [split_of(e.id) for e in rows]
    assert {e.split for e in rows} == {"train", "val", "test"}
    with pytest.raises(MirasolError, match="--split trian: expected one of train, val, test, hash"):
        summary_of(tmp_path, tmp_path / "a.tar", split="trian")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"txt": b"a dog"}, "no video and no sound"),
        ({"jpg": b"\xff\xd8", "txt": b"a dog"}, "only a picture"),
        ({"flac": b"f"}, "no caption: expected a text under caption or text of its JSON, or a txt"),
        ({"flac": b"f", "txt": b"\xff"}, ".txt: not UTF-8"),
        ({"flac": b"f", "json": b"{"}, ".json: not JSON"),
        ({"flac": b"f", "json": b"[1]"}, ".json: expected an object, got list"),
        ({"flac": b"f", "json": b'{"caption": 3}'}, "caption: expected a text, got '3'"),
        ({"flac": b"f", "json": b'{"caption": "\\ud800"}'}, "caption: expected a text"),
        ({"mp4": b"f", "front.mp4": b"f", "txt": b"x"}, "several media: .front.mp4, .mp4"),
        ({"mp4": b"f" * 200, "txt": b"x"}, "more than the allowed 100"),
        ({"mp4": b"f", "txt": b"x" * 200}, "more than the allowed 100"),
    ],
)
def test_unusable_samples_are_listed(
    files: dict[str, bytes], why: str, tmp_path: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "MAX_MEDIA", 100)
    monkeypatch.setattr(importer, "MAX_TEXT", 100)
    tar = pack("a.tar", bad=files, good={"flac": b"x", "txt": b"a dog"})
    found = summary_of(tmp_path, tar)
    assert [e.id for e in read_manifest(tmp_path / "data/manifest.jsonl")] == ["good"]
    (told,) = found["skipped"]
    assert told.startswith(f"{tar}: bad: ") and why in told
    assert [p.name for p in (tmp_path / "data/media").iterdir()] == ["good.flac"]


@pytest.mark.parametrize("name", ["../out", "/abs/../x", "a\\b", "x" * 230, b"\xff".decode(errors="surrogateescape")])
def test_no_key_leads_out_of_the_data_folder(name: str, tmp_path: Path, pack: Pack) -> None:
    tar = pack("a.tar", **{name: {"flac": b"x", "txt": b"a"}, "good": {"flac": b"x", "txt": b"a"}})
    assert len(summary_of(tmp_path, tar)["skipped"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "data"]


def test_sounds_and_pictures_next_to_media_and_other_files_are_counted(tmp_path: Path, pack: Pack) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "unpickled",))

    pickled = pickle.dumps(Bomb())
    tar = pack(
        "a.tar",
        both={"mp4": b"x", "wav": b"x", "txt": b"a"},
        still={"jpg": b"x", "wav": b"x", "txt": b"a", "pkl": pickled, "pyd": pickled, "npy": b"x"},
    )
    found = summary_of(tmp_path, tar)
    assert [e.media for e in read_manifest(tmp_path / "data/manifest.jsonl")] == ["media/both.mp4", "media/still.wav"]
    assert (found["sounds_unused"], found["pictures_unused"]) == (["both"], ["still"])
    assert found["files_ignored"] == {".pkl": 1, ".pyd": 1, ".npy": 1}
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("end", [0.35, 0.6, 0.9, "mark"])
def test_a_tar_that_is_cut_off_keeps_what_is_whole(
    end: float | str, tmp_path: Path, media: dict[str, bytes], pack: Pack
) -> None:
    tar = pack("a.tar", **{f"k{i}": {"flac": media["flac"], "txt": b"a"} for i in range(8)})
    other = pack("b.tar", last={"flac": media["flac"], "txt": b"a"})
    data = tar.read_bytes()
    with tarfile.open(tar) as whole:
        size = max(m.offset_data + 512 for m in whole)
    tar.write_bytes(data[: size if end == "mark" else int(size * float(end))])
    found = summary_of(tmp_path, tar, other)
    rows = [e.id for e in read_manifest(tmp_path / "data/manifest.jsonl")]
    assert rows[-1] == "last" and rows[:-1] == [f"k{i}" for i in range(len(rows) - 1)]
    assert len(found["broken_tars"]) == 1 and found["broken_tars"][0].startswith(str(tar))
    assert len(found["skipped"]) == 1 and f"k{len(rows) - 1}: the last before the fault" in found["skipped"][0]


def test_compressed_tars_are_read(tmp_path: Path, media: dict[str, bytes]) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, content in (("k.mp4", media["mp4"]), ("k.txt", b"a dog")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert summary_of(tmp_path, tmp_path / "a.tar.gz")["examples"] == 1


def test_equal_keys_are_refused(tmp_path: Path, pack: Pack) -> None:
    one, two = (pack(name, k={"flac": b"x", "txt": b"a"}) for name in ("a.tar", "b.tar"))
    with pytest.raises(MirasolError, match=r"b\.tar: the key 'k' is also in .*a\.tar"):
        summary_of(tmp_path, one, two)
    assert not list((tmp_path / "data").iterdir())


def test_an_import_that_fails_changes_nothing(tmp_path: Path, media: dict[str, bytes], pack: Pack) -> None:
    summary_of(tmp_path, pack("a.tar", k={"flac": media["flac"], "txt": b"a"}))
    before = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    with pytest.raises(MirasolError, match="is also in"):
        summary_of(tmp_path, pack("b.tar", k={"flac": b"x", "txt": b"b"}), pack("c.tar", k={"flac": b"y"}))
    assert {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()} == before


def test_a_second_set_is_added(tmp_path: Path, media: dict[str, bytes], pack: Pack) -> None:
    sample = {"flac": media["flac"], "txt": b"a"}
    summary_of(tmp_path, pack("a.tar", k0=sample), name="clips")
    later = pack("b.tar", k1=sample)
    found = summary_of(tmp_path, later, append=True, name="more", split="val")
    rows = read_manifest(tmp_path / "data/manifest.jsonl")
    assert [(e.id, e.set, e.split) for e in rows] == [("k0", "clips", "train"), ("k1", "more", "val")]
    assert sorted(found["sets"]) == ["clips", "more"]
    with pytest.raises(MirasolError, match=r"already holds the data set more: .*--set"):
        summary_of(tmp_path, later, append=True, name="more")
    with pytest.raises(MirasolError, match="id 'k1' is also an id of more"):
        summary_of(tmp_path, later, append=True, name="third")
    with pytest.raises(MirasolError, match="--set 'a b': expected letters"):
        summary_of(tmp_path, later, append=True, name="a b")


def test_braces_that_do_not_match_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        MirasolError, match=r"Unbalanced braces: .*\{a,b\.tar.*: expected braces like 'clips/\{00000\.\.00009\}"
    ):
        summary_of(tmp_path, "{a,b.tar")


def test_missing_tars_and_commands_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"2 of 2 tars do not exist:\n  .*/0\.tar\n"):
        summary_of(tmp_path, f"{tmp_path}/{{0..1}}.tar")
    with pytest.raises(MirasolError, match="1 of 1 tars do not exist"):
        summary_of(tmp_path, f"pipe:touch {tmp_path}/ran")
    with pytest.raises(MirasolError, match="https://"):
        summary_of(tmp_path, "https://example.org/a.tar")
    assert not (tmp_path / "ran").exists()


def test_tars_without_a_usable_sample_are_an_error(tmp_path: Path, pack: Pack) -> None:
    (tmp_path / "text.tar").write_bytes(b"this is no tar at all" * 100)
    with pytest.raises(MirasolError, match=r"(?s)no usable sample in 2 tar\(s\).*text\.tar.*a\.tar: k: no video"):
        summary_of(tmp_path, tmp_path / "text.tar", pack("a.tar", k={"txt": b"a"}))
