"""Media behind URLs: a real S3 server, local files, and refused URLs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.inline import inline_workers
from support.media import TINY_CLIP, write_data
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.data.shards import build as shards_module
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.storage import check_url, identities, local_file

THREE = ShardsSpec(clips_per_shard=3, workers=2)


def facts_of(folder: Path) -> list[bytes]:
    """The media of every clip, without the JSON that names them."""
    import tarfile

    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if not m.name.endswith("json")]
    return found


def elsewhere(data: Path, folder: Path, prefix: str) -> Path:
    """A data folder with the rows of ``data``, whose media begin with ``prefix``."""
    rows = read_manifest(data / "manifest.jsonl")
    write_manifest(
        folder / "manifest.jsonl", [dataclasses.replace(r, media=r.media.replace("media/", prefix)) for r in rows]
    )
    return folder


def test_media_of_an_s3_server_give_the_same_clips(tiny_shards: TinyShards, tmp_path: Path, bucket: Any) -> None:
    for path in (tiny_shards.data / "media").iterdir():
        bucket.put_file(str(path), f"media/same/{path.name}")
    data = elsewhere(tiny_shards.data, tmp_path / "data", "s3://media/same/")
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (report["clips"], report["rejected"]) == (16, 0)
    assert facts_of(tmp_path / "shards") == facts_of(tiny_shards.folder)


def test_an_object_that_changed_is_made_again_and_no_other(tmp_path: Path, bucket: Any) -> None:
    source = write_data(tmp_path / "source", 8)
    for path in (source / "media").iterdir():
        bucket.put_file(str(path), f"media/changed/{path.name}")
    data = elsewhere(source, tmp_path / "data", "s3://media/changed/")
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    bucket.put_file(str(source / "media/5.mp4"), "media/changed/0.mp4")
    bucket.invalidate_cache()
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (report["reused"], report["without_audio"]) == (7, 3)


def test_an_object_that_is_missing_is_a_rejected_clip(tmp_path: Path, bucket: Any) -> None:
    source = write_data(tmp_path / "source", 8)
    for path in (source / "media").iterdir():
        if path.name != "0.mp4":
            bucket.put_file(str(path), f"media/missing/{path.name}")
    data = elsewhere(source, tmp_path / "data", "s3://media/missing/")
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, dataclasses.replace(THREE, max_rejected=0.5))
    assert report["clips"] == 7
    assert report["rejected_list"][0].startswith("s3://media/missing/0.mp4 [")
    assert report["rejected_list"][0].endswith("no such file")


def test_a_store_that_cannot_be_reached_fails_the_run(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.clear_instance_cache()
    try:
        with pytest.raises(MirasolError, match=r"s3://media/x.mp4: cannot be read: .*connect"):
            identities(tmp_path, ["s3://media/x.mp4"])
    finally:
        bucket.clear_instance_cache()


def test_local_files_can_be_named_by_url(
    tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "open_workers", inline_workers)
    data = elsewhere(tiny_shards.data, tmp_path / "data", f"file://{tiny_shards.data}/media/")
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert facts_of(tmp_path / "shards") == facts_of(tiny_shards.folder)


def test_the_copy_of_an_object_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"content")
    with local_file(tmp_path, f"file://{tmp_path}/a.mp4") as path:
        assert (path.read_bytes(), path.suffix) == (b"content", ".mp4")
    assert not path.exists() and (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "https://host/x.mp4",
        "ftp://host/x",
        "memory://x",
        "s3://",
        "s3://bucket/../../x.mp4",
        "simplecache::s3://bucket/x.mp4",
        "s3://bucket/x.zip::file://x",
        "s3://bucket/http://host/x",
        "s3://bucket/x\0.mp4",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    assert check_url(url) is not None


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    told = check_url("s3://key:secret@bucket/x.mp4")
    assert told is not None and "secret" not in told and "credentials come from" in told
    assert check_url("abfs://container@account.dfs.core.windows.net/x.mp4") is None


def test_a_store_without_its_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MirasolError, match=r"gs://bucket/x.mp4: .*pip install"):
        identities(tmp_path, ["gs://bucket/x.mp4"])
