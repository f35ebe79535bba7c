"""Shards behind a URL, on a real S3 server and in a folder: written once, read by range or as copies, mended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from support.inline import inline_workers
from support.loading import SETTINGS, digest, loader_of
from support.media import TINY_CLIP, write_data
from support.s3 import Server
from support.shards import CLIPS, TinyShards
from typer.testing import CliRunner

from mirasol.cli.main import app
from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.contact_sheet import contact_sheet
from mirasol.data.loading import reader as tars_module
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.shards import build as shards_module
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.format import DamagedClip, object_name
from mirasol.data.storage import RemoteFolder, check_folder
from mirasol.data.verify import check_shards
from mirasol.tokenizer import Tokenizer

THREE = ShardsSpec(clips_per_shard=3, workers=1)
KILLER = """
import os, signal, sys
from pathlib import Path
from support.inline import inline_workers
from support.media import TINY_CLIP
from mirasol.data.shards import build as shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.storage import RemoteFolder

data, out, store, url, moment = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])
shards.open_workers = inline_workers
put, done = RemoteFolder.put, []

def kill(folder, path, name):
    if len(done) == moment and moment % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    put(folder, path, name)
    done.append(name)
    if len(done) > moment:
        os.kill(os.getpid(), signal.SIGKILL)

RemoteFolder.put = kill
shards.build_shards(data, out, TINY_CLIP, ShardsSpec(clips_per_shard=3, workers=1, storage=url), store)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "open_workers", inline_workers)


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of either kind."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    request.getfixturevalue("bucket")
    return f"s3://media/{tmp_path.name}"


def build(tiny: TinyShards, out: Path, url: str, data: Path | None = None, **changes: Any) -> dict[str, Any]:
    """Write shards to ``url``, from the parts that the local ones were made of."""
    spec, parts = dataclasses.replace(THREE, storage=url, **changes), out.with_name("parts")
    if not parts.exists():
        shutil.copytree(tiny.folder.with_name("shards.parts"), parts)
    return build_shards(data or tiny.data, out, TINY_CLIP, spec, parts)


def objects(url: str) -> dict[str, bytes]:
    files, inside = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return {path.rsplit("/", 1)[1]: files.cat_file(path) for path in files.find(inside)}


def change(url: str, name: str, contents: Callable[[bytes], bytes]) -> None:
    files, inside = fsspec.core.url_to_fs(f"{url}/{name}")
    files.pipe_file(inside, contents(files.cat_file(inside)))


def named(out: Path, split: str, number: int = 0) -> tuple[dict[str, Any], str]:
    """Entry and object of a tar."""
    tar = json.loads((out / "shards.json").read_text())["splits"][split][number]
    return tar, object_name(tar["name"], tar["sha256"])


def same(one: ShardDataset, other: ShardDataset) -> bool:
    arrays = ("video", "audio", "video_present", "audio_present")
    pairs = [(one.read(i), other.read(i)) for i in range(len(other))]
    return one.keys == other.keys and all(
        a.meta == b.meta and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) for a, b in pairs
    )


def test_the_tars_lie_there_and_the_list_alone_here(tiny_shards: TinyShards, tmp_path: Path, url: str) -> None:
    report = build(tiny_shards, tmp_path / "out", url)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["shards.json"]
    here = {p.name: p.read_bytes() for p in tiny_shards.folder.iterdir() if p.name != "shards.json"}
    there = objects(url)
    assert {f"{n.split('.')[0]}.{n.split('.', 2)[2]}": data for n, data in there.items()} == here
    assert report["sent"] == sum(map(len, here.values())) and len(there) == len(here)


@pytest.mark.parametrize("copies", [True, False], ids=["copies", "range"])
def test_clips_are_those_of_local_shards(tiny_shards: TinyShards, tmp_path: Path, url: str, copies: bool) -> None:
    build(tiny_shards, tmp_path / "out", url)
    for split in ("train", "val"):
        there = ShardDataset(tmp_path / "out", split, cache=tmp_path / "cache" if copies else None)
        assert same(there, ShardDataset(tiny_shards.folder, split))


@pytest.mark.parametrize("copies", [True, False], ids=["copies", "range"])
def test_loader_processes_give_the_batches_of_local_shards(
    tiny_shards: TinyShards, tokenizer: Tokenizer, tmp_path: Path, bucket: Any, copies: bool
) -> None:
    build(tiny_shards, tmp_path / "out", f"s3://media/{tmp_path.name}")
    there = ShardDataset(tmp_path / "out", "train", cache=tmp_path / "cache" if copies else None)
    here = ShardDataset(tiny_shards.folder, "train")
    made = [loader_of(shards, tokenizer, **SETTINGS, workers=w) for shards, w in ((there, 2), (here, 0))]
    assert digest(made[0], 4) == digest(made[1], 4)


def test_processes_that_begin_at_once_leave_each_others_files_alone(
    tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_shards, tmp_path / "out", f"file://{tmp_path}/store")

    writing = threading.Event()

    @contextlib.contextmanager
    def slow(path: Path) -> Iterator[Any]:
        with atomic_write(path) as file:
            yield file
            writing.set()
            time.sleep(0.2)  # now the other would find a file whose name it does not know

    monkeypatch.setattr(tars_module, "atomic_write", slow)
    with ThreadPoolExecutor(1) as other:
        opened = other.submit(ShardDataset, tmp_path / "out", "train", cache=tmp_path / "cache")
        assert writing.wait(60)
        assert len(ShardDataset(tmp_path / "out", "train", cache=tmp_path / "cache")) == len(opened.result())


def test_a_clip_alone_costs_its_own_bytes(
    tiny_shards: TinyShards, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_shards, tmp_path / "out", url)
    shards = ShardDataset(tmp_path / "out", "train")
    asked: list[int] = []
    read = RemoteFolder.read
    monkeypatch.setattr(
        RemoteFolder,
        "read",
        lambda f, n, o=0, s=None: asked.append(s) or read(f, n, o, s),  # type: ignore[func-returns-value]
    )
    shards.arrays(0)
    assert sorted(asked) == sorted(size for _, size in shards._places[0][1].places.values())


def test_what_is_there_is_not_sent_again(tiny_shards: TinyShards, tmp_path: Path, url: str) -> None:
    build(tiny_shards, tmp_path / "out", url)
    first = (tmp_path / "out/shards.json").read_bytes()
    shutil.rmtree(tmp_path / "out")  # as DVC does
    report = build(tiny_shards, tmp_path / "out", url)
    assert (report["sent"], report["reused"]) == (0, CLIPS)
    assert (tmp_path / "out/shards.json").read_bytes() == first


def test_new_rows_send_new_tars_and_an_old_list_still_reads_its_own(tiny_shards: TinyShards, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    build(tiny_shards, tmp_path / "out", url)
    old = objects(url)
    shutil.copytree(tmp_path / "out", tmp_path / "old")
    build(tiny_shards, tmp_path / "out", url, write_data(tmp_path / "data", CLIPS + 4))
    now = objects(url)
    assert {name: now[name] for name in old} == old and len(now) > len(old)
    sets = [ShardDataset(tmp_path / f, "train") for f in ("old", "out")]
    assert sets[1].keys[:8] == sets[0].keys and len(sets[1]) == 10
    assert same(sets[0], ShardDataset(tiny_shards.folder, "train"))


@pytest.mark.parametrize("moment", [3, 6])
def test_a_kill_between_uploads_loses_nothing(tiny_shards: TinyShards, tmp_path: Path, url: str, moment: int) -> None:
    build(tiny_shards, tmp_path / "whole/out", url + "/whole")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    out, parts = tmp_path / "killed/out", tmp_path / "killed/parts"
    shutil.copytree(tmp_path / "whole/parts", parts)
    command = [sys.executable, "-c", KILLER, tiny_shards.data, out, parts, url + "/killed", str(moment)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, left = objects(url + "/whole"), objects(url + "/killed")
    assert not (out / "shards.json").exists()
    assert 0 < len(left) < len(whole) and left.items() <= whole.items()
    report = build(tiny_shards, out, url + "/killed")
    assert objects(url + "/killed") == whole
    assert report["sent"] == sum(map(len, whole.values())) - sum(map(len, left.values()))
    assert [p.name for p in out.iterdir()] == ["shards.json"]


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    tiny_shards: TinyShards, tmp_path: Path, server: Server
) -> None:
    build(tiny_shards, tmp_path / "out", f"s3://media/{tmp_path.name}")
    shards = ShardDataset(tmp_path / "out", "train")
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    clip = shards.arrays(0)
    back.join()
    assert clip.video is not None


def test_a_store_that_stays_away_is_an_error_and_no_damage(
    tiny_shards: TinyShards, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server.files.clear_instance_cache()
    url = f"s3://media/{tmp_path.name}"
    build(tiny_shards, tmp_path / "out", url)
    shards = ShardDataset(tmp_path / "out", "train")
    server.stop()
    try:
        with pytest.raises(MirasolError, match=rf"{url}/train-00000\..*\.tar: cannot be read: .*Look at") as told:
            shards.arrays(0)
        assert not isinstance(told.value, DamagedClip)
        with pytest.raises(MirasolError, match=rf"{url}: cannot be listed: .*connect"):
            build(tiny_shards, tmp_path / "other/out", url)
        assert not list((tmp_path / "other").glob("out/*"))  # before any work
    finally:
        server.start()
        server.files.clear_instance_cache()


def test_a_bucket_that_is_not_there_is_told(tiny_shards: TinyShards, tmp_path: Path, bucket: Any) -> None:
    with pytest.raises(MirasolError, match=r"s3://nowhere/x/train-00000\..*\.tar: cannot be written: "):
        build(tiny_shards, tmp_path / "out", "s3://nowhere/x")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "s3://key:secret@bucket/x",
        "s3://bucket/x?sig=secret",
        "http://host/secret",
        "shards",
        "s3://bucket/*",
        "file://",
    ],
)
def test_urls_that_are_no_folder_are_refused_and_passwords_not_repeated(
    tiny_shards: TinyShards, tmp_path: Path, wrong: str
) -> None:
    with pytest.raises(MirasolError, match=r"^shards\.storage: ") as told:
        build(tiny_shards, tmp_path / "out", wrong)
    assert "secret" not in str(told.value) or "host" in wrong


def test_accounts_in_urls_are_names() -> None:
    assert check_folder("abfs://container@account.dfs.core.windows.net/shards") is None


def test_a_list_that_names_another_kind_of_store_is_refused(tiny_shards: TinyShards, tmp_path: Path) -> None:
    build(tiny_shards, tmp_path / "out", f"file://{tmp_path}/store")
    index = json.loads((tmp_path / "out/shards.json").read_text())
    (tmp_path / "out/shards.json").write_text(json.dumps(index | {"storage": "http://169.254.169.254"}))
    with pytest.raises(MirasolError, match=r"(?s)shards\.json: .*storage: 'http://169"):
        ShardDataset(tmp_path / "out", "train")


def test_the_folder_itself_is_no_url_of_it(tiny_shards: TinyShards, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="itself, which each run empties"):
        build(tiny_shards, tmp_path / "out", f"file://{tmp_path}/out/")


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_a_flipped_bit_is_found_told_and_mended(tiny_shards: TinyShards, tmp_path: Path, url: str) -> None:
    build(tiny_shards, tmp_path / "out", url)
    sound = objects(url)
    key, entry = (shards := ShardDataset(tmp_path / "out", "train")).keys[1], shards._places[1][1]
    _, name = named(tmp_path / "out", "train")
    change(url, name, lambda data: flip(data, entry.places["json"][0] + 5))
    done = CliRunner().invoke(app, ["data", "check", "--shards", str(tmp_path / "out")])
    told = str(done.exception) + done.output
    assert done.exit_code != 0 and f"train-00000.tar: clip {key}: json is damaged" in told
    assert f"after removing {url}/{name}" in told and f"1 of {CLIPS} clips" in told
    files, inside = fsspec.core.url_to_fs(f"{url}/{name}")
    files.rm_file(inside)
    assert build(tiny_shards, tmp_path / "out", url)["sent"] == len(sound[name])
    assert objects(url) == sound and check_shards(tmp_path / "out")["damaged"] == []


def test_a_shortened_tar_is_told_and_sent_again(tiny_shards: TinyShards, tmp_path: Path, url: str) -> None:
    build(tiny_shards, tmp_path / "out", url)
    sound = objects(url)
    _, name = named(tmp_path / "out", "train")
    change(url, name, lambda data: data[:-9000])
    with pytest.raises(MirasolError, match=rf"{name} has \d+ bytes, expected \d+: remove"):
        ShardDataset(tmp_path / "out", "train")
    assert any("bytes do not match the hash" in line for line in check_shards(tmp_path / "out")["damaged"])
    build(tiny_shards, tmp_path / "out", url)
    assert objects(url) == sound


def test_a_missing_tar_and_a_damaged_index_are_told(tiny_shards: TinyShards, tmp_path: Path, url: str) -> None:
    build(tiny_shards, tmp_path / "out", url)
    tar, name = named(tmp_path / "out", "train", 1)
    files, inside = fsspec.core.url_to_fs(f"{url}/{name}")
    files.rm_file(inside)
    other = json.loads((tmp_path / "out/shards.json").read_text())["splits"]["val"][0]
    change(url, object_name(other["name"] + ".idx.json", other["index_sha256"]), lambda data: flip(data, 40))
    damaged = check_shards(tmp_path / "out")["damaged"]
    assert len(damaged) == 2 and damaged[0] == f"{tar['name']}: is missing"
    assert "not the index of a tar (the bytes do not match their hash)" in damaged[1]
    with pytest.raises(MirasolError, match=f"{name} is missing"):
        ShardDataset(tmp_path / "out", "train")


@pytest.mark.parametrize("spoil", [lambda d: flip(d, 2000), lambda d: d[:2000]], ids=["flipped", "shortened"])
@pytest.mark.parametrize("copies", [True, False], ids=["copies", "range"])
def test_a_damaged_tar_loses_its_damaged_clips_only(
    tiny_shards: TinyShards, tmp_path: Path, spoil: Callable[[bytes], bytes], copies: bool
) -> None:
    url = f"file://{tmp_path}/store"
    build(tiny_shards, tmp_path / "out", url)
    change(url, named(tmp_path / "out", "train", 1)[1], spoil)
    shards = ShardDataset(tmp_path / "out", "train", cache=tmp_path / "cache" if copies else None, any_size=True)
    lost = []
    for number in range(len(shards)):
        try:
            shards.verify(number)
        except DamagedClip:
            lost.append(number)
    assert lost and set(lost) <= {3, 4, 5}
    assert shards.read(0).video is not None


def test_a_damaged_tar_is_no_copy(tiny_shards: TinyShards, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    build(tiny_shards, tmp_path / "out", url)
    _, name = named(tmp_path / "out", "val")
    change(url, name, lambda data: flip(data, 2000))
    with pytest.raises(MirasolError, match=f"{name}: the bytes do not match their hash: remove"):
        ShardDataset(tmp_path / "out", "val", cache=tmp_path / "cache")


def test_copies_are_made_once_and_those_of_other_sets_removed(
    tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_shards, tmp_path / "out", f"file://{tmp_path}/store")
    kept = tmp_path / "cache/tars"
    kept.mkdir(parents=True)
    (kept / "train-00000.0123456789abcdef.tar").write_bytes(b"of another set")
    (kept / f"{named(tmp_path / 'out', 'train')[1]}.tmp").write_bytes(b"of a run that was killed")
    ShardDataset(tmp_path / "out", "train", cache=tmp_path / "cache")
    assert sorted(p.name for p in kept.glob("*.tar")) == sorted(
        named(tmp_path / "out", "train", n)[1] for n in range(3)
    )
    monkeypatch.setattr("mirasol.data.storage._opened", None)  # the store is not needed any more
    assert ShardDataset(tmp_path / "out", "train", cache=tmp_path / "cache").read(0).video is not None


def test_a_contact_sheet_is_drawn(tiny_shards: TinyShards, tmp_path: Path, bucket: Any) -> None:
    build(tiny_shards, tmp_path / "out", f"s3://media/{tmp_path.name}")
    shards = ShardDataset(tmp_path / "out", "test")
    [page] = contact_sheet(shards, tmp_path / "look.png", clips=2, shard="test-00000.tar")
    assert page.stat().st_size > 5000
