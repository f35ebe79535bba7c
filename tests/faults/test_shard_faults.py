"""Faults of shards: kills at any moment, damaged and hostile tars, two runs at once, odd names."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.inline import inline_workers
from support.media import TINY_CLIP, example, tone, write_data, write_media
from support.shards import CLIPS, TinyShards

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import write_manifest
from mirasol.data.shards import build as shards_module
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encoded_cache import EncodedCache
from mirasol.data.verify import check_shards

ONE = ShardsSpec(clips_per_shard=3, workers=1)
ANY = ShardsSpec(clips_per_shard=3, workers=1, max_rejected=1.0)
KILLED_ALWAYS, KILLED_SLOW = range(10), range(10, 200)
KILLER = Path(__file__).parents[1] / "support" / "kill_shards.py"


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "open_workers", inline_workers)


@pytest.fixture
def copy(tiny_shards: TinyShards, tmp_path: Path) -> Path:
    """A set that a test may damage."""
    return Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def survives(folder: Path, seeds: range) -> None:
    """Kill a run at the moment of every seed; what stands then is right, and the next run gives the same bytes."""
    data = write_data(folder / "data", 12, questions=1)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OPENBLAS_NUM_THREADS": "1",  # a process with threads must not fork
    }
    command = [sys.executable, str(KILLER), str(data), str(folder), *map(str, seeds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    moments = json.loads(done.stdout)["moments"]
    whole = contents(folder / "whole" / "shards")
    for seed in seeds:
        killed = contents(folder / str(seed) / "killed")
        wrong = [n for n, data in killed.items() if not n.endswith(".tmp") and data != whole[n]]
        assert not wrong, f"seed {seed}: killed at call {moments[str(seed)]} and left {wrong} half-written"
        again = contents(folder / str(seed) / "shards")
        assert again == whole, f"seed {seed}: killed at call {moments[str(seed)]}, then other bytes"
        parts = list((folder / str(seed) / "parts").glob("??/*"))
        assert len(parts) == 12 and not any(p.suffix for p in parts), f"seed {seed}: parts {parts}"


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    survives(tmp_path, KILLED_ALWAYS)


@pytest.mark.slow
def test_a_kill_at_any_of_190_more_moments_loses_nothing(tmp_path: Path) -> None:
    survives(tmp_path, KILLED_SLOW)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: b"", lambda d: d[:90] + b"\xff" + d[91:]])
def test_a_part_that_a_power_cut_spoilt_is_made_again(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    data = write_data(tmp_path / "data", 8)
    build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    whole = contents(tmp_path / "shards")
    for path in list((tmp_path / "shards.parts").glob("??/*"))[:3]:
        path.write_bytes(spoil(path.read_bytes()))
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert (contents(tmp_path / "shards"), report["reused"]) == (whole, 5)


def test_a_second_run_at_once_fails_clearly(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    with (
        EncodedCache(tmp_path / "shards.parts"),
        pytest.raises(MirasolError, match=rf"another run.*process {os.getpid()} on"),
    ):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)


@pytest.mark.usefixtures("inline")
def test_the_loser_of_two_runs_takes_nothing_from_the_winner(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 8)
    build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    whole = contents(tmp_path / "shards")
    with EncodedCache(tmp_path / "shards.parts"), pytest.raises(MirasolError, match="another run"):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(clips_per_shard=5, workers=1))
    assert contents(tmp_path / "shards") == whole


NAMES = {
    "spaces": "a  b .mp4",
    "emoji": "🎬🥁.mp4",
    "newline": "a\nb.mp4",
    "quotes": "a'b\"c.mp4",
    "percent": "100%d%s.mp4",
    "colon": "concat:a|b.mp4",
    "255 bytes": "é" * 125 + "x.mp4",
    "no suffix": "clip",
    "dash": "-i.mp4",
}


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    data = write_data(tmp_path / "data", 4)
    assert len(name.encode()) <= 255
    (data / "media/0.mp4").rename(data / "media" / name)
    rows = [example(i, media=f"media/{name if i == 0 else f'{i}.mp4'}") for i in range(4)]
    write_manifest(data / "manifest.jsonl", rows)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert (report["clips"], report["rejected"]) == (4, 0)
    with tarfile.open(tmp_path / "shards/train-00000.tar") as tar:
        assert json.load(tar.extractfile(tar.getnames()[2]))["media"] == f"media/{name}"
    assert check_shards(tmp_path / "shards")["damaged"] == []


@pytest.mark.usefixtures("inline")
def test_a_bad_file_with_an_odd_name_is_one_line_of_the_report(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    (data / "media/a\nb.mp4").write_bytes(b"nothing")
    write_manifest(data / "manifest.jsonl", [*(example(i) for i in range(4)), example(4, media="media/a\nb.mp4")])
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ANY)
    assert report["rejected"] == 1 and "\n" not in report["rejected_list"][0]


def test_an_empty_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(MirasolError, match="holds no example"):
        build_shards(tmp_path, tmp_path / "shards", TINY_CLIP, ONE)


def test_one_example_is_too_few_and_the_message_says_for_what(tmp_path: Path) -> None:
    write_media(tmp_path / "media/0.mp4", frames=4, size=(16, 16))
    write_manifest(tmp_path / "manifest.jsonl", [example(0)])
    with pytest.raises(MirasolError, match="no usable clip in the split val: training cannot score itself"):
        build_shards(tmp_path, tmp_path / "shards", TINY_CLIP, ONE)


@pytest.mark.usefixtures("inline")
def test_one_example_a_split_is_enough(tmp_path: Path) -> None:
    for number in (0, 2):
        write_media(tmp_path / f"media/{number}.mp4", frames=4, size=(16, 16), sound=tone(0.5))
    write_manifest(tmp_path / "manifest.jsonl", [example(0), example(2)])
    report = build_shards(tmp_path, tmp_path / "shards", TINY_CLIP, ONE)
    assert report["splits"] == {"train": 1, "val": 1, "test": 0}


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(("spec", "said"), [(ONE, "shards.max_rejected"), (ANY, "no usable clip in the split train")])
def test_all_rejected_is_told_and_leaves_no_shards(tmp_path: Path, spec: ShardsSpec, said: str) -> None:
    data = write_data(tmp_path / "data", 4)
    for path in (data / "media").iterdir():
        path.write_bytes(b"no video")
    with pytest.raises(MirasolError, match=said):
        build_shards(data, tmp_path / "shards", TINY_CLIP, spec)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_shortened_tar_is_counted_with_the_clips_that_it_lost(copy: Path) -> None:
    path = copy / "train-00000.tar"
    _, places = json.loads((copy / "train-00000.tar.idx.json").read_text())["samples"][2]
    path.write_bytes(path.read_bytes()[: places["json"][0] + 10])
    found = check_shards(copy)
    assert (found["clips"], len(found["lost"])) == (CLIPS, 1)
    assert any("bytes do not match the hash" in line for line in found["damaged"])


def test_a_flipped_bit_is_counted_with_the_clip_that_it_lost(copy: Path) -> None:
    path = copy / "train-00000.tar"
    key, places = json.loads((copy / "train-00000.tar.idx.json").read_text())["samples"][1]
    data = bytearray(path.read_bytes())
    data[places["mp4"][0] + places["mp4"][1] // 2] ^= 1
    path.write_bytes(data)
    assert check_shards(copy)["lost"] == [key]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("spoil", [lambda d: d[:-5000], lambda d: d[:3000] + b"\xff" + d[3001:], None])
def test_damaged_tars_are_made_again_from_the_parts(tmp_path: Path, spoil: Callable[[bytes], bytes] | None) -> None:
    data = write_data(tmp_path / "data", 8)
    build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    whole = contents(tmp_path / "shards")
    for name in ("train-00000.tar", "train-00001.tar.idx.json"):
        path = tmp_path / "shards" / name
        path.write_bytes(spoil(path.read_bytes())) if spoil else path.unlink()
    assert check_shards(tmp_path / "shards")["damaged"]
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert (contents(tmp_path / "shards"), report["reused"]) == (whole, 8)


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info, b"evil"[: info.size]


KEY = "0123456789abcdef"
HOSTILE = {
    "up": hostile("../evil.json"),
    "up with a good name": hostile(f"../{KEY}.json"),
    "absolute": hostile(f"/{KEY}.json"),
    "pickle": hostile(f"{KEY}.pkl"),
    "python": hostile(f"{KEY}.pyd"),
    "two suffixes": hostile(f"{KEY}.pyd.json"),
    "line end": hostile(f"{KEY}.json\n"),
    "symbolic link": hostile(f"{KEY}.json", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": hostile(f"{KEY}.json", tarfile.LNKTYPE, "../../secret"),
    "folder": hostile(KEY, tarfile.DIRTYPE),
    "device": hostile(f"{KEY}.json", tarfile.CHRTYPE),
    "pipe": hostile(f"{KEY}.json", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tar_that_holds_more_than_clips_is_refused_also_with_the_right_hash(
    copy: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    path = copy / "val-00000.tar"
    with tarfile.open(path, "a") as tar:
        tar.addfile(member[0], io.BytesIO(member[1]))
    listed(copy, "val", bytes=path.stat().st_size, sha256=sha256_file(path))
    damaged = check_shards(copy)["damaged"]
    assert len(damaged) == 1 and "does not belong in a shard" in damaged[0]


def listed(folder: Path, split: str, **changes: object) -> None:
    """Change the entry of the first tar of ``split`` in the list, as whoever made the tar could."""
    index = json.loads((folder / "shards.json").read_text())
    index["splits"][split][0] |= changes
    (folder / "shards.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", "val-00000.tar/../../x", "val-00000.tar\n"])
def test_a_list_that_names_files_elsewhere_is_refused(copy: Path, name: str) -> None:
    listed(copy, "val", name=name)
    told = re.escape(f"{name!r} is not the name of a shard")
    for read in (
        check_shards,
        lambda folder: ShardDataset(folder, "train"),
        lambda folder: ShardDataset(folder, "val"),
    ):
        with pytest.raises(MirasolError, match=told):
            read(copy)


def test_an_index_that_points_elsewhere_is_told(copy: Path) -> None:
    path = copy / "val-00000.tar.idx.json"
    index = json.loads(path.read_text())
    index["samples"][0][1]["json"][0] += 1
    path.write_text(json.dumps(index))
    found = check_shards(copy)
    assert found["lost"] == [index["samples"][0][0]]
    assert found["damaged"] == ["val-00000.tar: the index does not fit the tar: 1 clip(s) lie elsewhere"]


def test_a_compressed_tar_is_not_unpacked(copy: Path) -> None:
    import gzip

    path = copy / "val-00000.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert any("is not a whole tar" in line for line in check_shards(copy)["damaged"])
