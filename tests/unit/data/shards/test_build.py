"""Building shards: their contents, equal bytes, bad clips counted, no files left after an error."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import webdataset
from support.media import TINY_CLIP, example, tone, write_data, write_media
from support.shards import CLIPS, TinyShards

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.verify import check_shards

ONE = ShardsSpec(clips_per_shard=3, workers=1)


def test_the_report_counts_what_is_there(tiny_shards: TinyShards) -> None:
    report = tiny_shards.report
    assert report["clips"] == CLIPS
    assert report["splits"] == {"train": 8, "val": 4, "test": 4}
    assert report["examples"] == {"train": 32, "val": 16, "test": 16}
    assert (report["rejected"], report["rejected_list"]) == (0, [])
    assert (report["without_audio"], report["without_video"]) == (4, 2)
    assert report["copied"] == 14  # the sources conform, the two without a picture have nothing to copy
    assert report["shards"] == 3 + 2 + 2


def test_webdataset_reads_the_tars(tiny_shards: TinyShards) -> None:
    urls = [str(p) for p in sorted(tiny_shards.folder.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == 8
    facts = json.loads(samples[0]["json"])
    assert facts["key"] == samples[0]["__key__"]
    assert [e["id"] for e in facts["examples"]] == ["c0", "q0-0", "q0-1", "q0-2"]
    assert samples[0]["mp4"] and samples[0]["flac"]


def test_a_modality_that_is_absent_has_no_file(tiny_shards: TinyShards) -> None:
    with tarfile.open(tiny_shards.folder / "train-00000.tar") as tar:
        kinds = [name.partition(".")[2] for name in tar.getnames()]
    assert kinds == ["mp4", "flac", "json", "mp4", "json", "flac", "json"]  # clip 1 is mute, clip 4 blind


def test_clips_keep_the_order_of_the_manifest(tiny_shards: TinyShards) -> None:
    index = [json.loads(p.read_text()) for p in sorted(tiny_shards.folder.glob("val-*.idx.json"))]
    keys = [key for tar in index for key, _ in tar["samples"]]
    with tarfile.open(tiny_shards.folder / "val-00000.tar") as tar:
        assert [m.name[:16] for m in tar if m.name.endswith("json")] == keys[:3]


def test_the_index_says_where_files_lie(tiny_shards: TinyShards) -> None:
    path = tiny_shards.folder / "test-00000.tar"
    places = json.loads(path.with_name(path.name + ".idx.json").read_text())["samples"]
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        for key, files in places:
            for kind, (offset, size) in files.items():
                assert tar.extractfile(f"{key}.{kind}").read() == data[offset : offset + size]


def test_any_number_of_processes_gives_the_same_bytes(tiny_shards: TinyShards, tmp_path: Path) -> None:
    build_shards(tiny_shards.data, tmp_path, TINY_CLIP, ShardsSpec(clips_per_shard=3, workers=3))
    names = sorted(p.name for p in tiny_shards.folder.iterdir())
    assert names == sorted(p.name for p in tmp_path.iterdir())
    assert [n for n in names if (tmp_path / n).read_bytes() != (tiny_shards.folder / n).read_bytes()] == []


def test_the_list_holds_the_hash_of_every_tar(tiny_shards: TinyShards) -> None:
    index = json.loads((tiny_shards.folder / "shards.json").read_text())
    tars = [tar for tars in index["splits"].values() for tar in tars]
    assert [sha256_file(tiny_shards.folder / t["name"]) for t in tars] == [t["sha256"] for t in tars]
    assert sum(t["clips"] for t in tars) == CLIPS


def test_no_path_of_this_machine_is_in_the_shards(tiny_shards: TinyShards) -> None:
    for path in tiny_shards.folder.iterdir():
        assert str(tiny_shards.data).encode() not in path.read_bytes()


def test_bad_clips_are_counted_and_listed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 8)
    (data / "media/0.mp4").write_bytes(b"no video at all" * 50)
    (data / "media/1.mp4").unlink()
    write_media(data / "media/5.mp4", frames=1)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1, max_rejected=0.5))
    assert (report["clips"], report["rejected"]) == (5, 3)
    bad, missing, short = report["rejected_list"]
    assert bad.startswith("media/0.mp4") and "cannot be opened" in bad
    assert missing.startswith("media/1.mp4") and "no such file" in missing
    assert short.startswith("media/5.mp4") and "shorter than one chunk" in short
    index = json.loads((tmp_path / "shards/shards.json").read_text())
    assert [r["media"] for r in index["rejected"]] == ["media/0.mp4", "media/1.mp4", "media/5.mp4"]


def test_clips_that_go_on_behind_their_chunks_are_counted(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 8)
    examples = read_manifest(data / "manifest.jsonl")
    seconds = TINY_CLIP.chunks * TINY_CLIP.chunk_seconds
    longer = [
        dataclasses.replace(e, start=0.0, end=seconds + (1.0 if e.media == "media/3.mp4" else 0.0)) for e in examples
    ]
    write_manifest(data / "manifest.jsonl", longer)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
    assert (report["clips"], report["cut_short"]) == (8, 1)


def test_too_many_bad_clips_fail_and_leave_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 8)
    (data / "media/0.mp4").unlink()
    with pytest.raises(MirasolError, match=r"shards.max_rejected = 0.05 of the 8 clips.*\n.*media/0.mp4.*no such file"):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_split_is_told_before_any_work(tmp_path: Path, empty: str) -> None:
    rows = [e for e in (example(i) for i in range(8)) if e.split != empty]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    with pytest.raises(MirasolError, match=f"no usable clip in the split {empty}"):
        build_shards(tmp_path, tmp_path / "shards", TINY_CLIP, ONE)


def test_test_clips_alone_are_a_benchmark(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    rows = [dataclasses.replace(e, split="test") for e in read_manifest(data / "manifest.jsonl")]
    write_manifest(data / "manifest.jsonl", rows)
    assert build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)["splits"] == {"train": 0, "val": 0, "test": 4}


def test_a_split_that_loses_all_its_clips_is_told(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    for number in (0, 1):
        (data / f"media/{number}.mp4").unlink()
    with pytest.raises(MirasolError, match="no usable clip in the split train"):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1, max_rejected=1))


def test_silent_sound_is_sound(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    write_media(data / "media/0.mp4", frames=4, size=(16, 16), sound=0 * tone(0.5))
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert (report["silent"], report["without_audio"]) == (1, 1)  # clip 1 has no track


def test_old_tars_do_not_stay(tmp_path: Path, tiny_shards: TinyShards) -> None:
    shutil.copytree(tiny_shards.folder, tmp_path / "shards")
    build_shards(tiny_shards.data, tmp_path / "shards", TINY_CLIP, ShardsSpec(clips_per_shard=100, workers=1))
    assert sorted(p.name for p in (tmp_path / "shards").glob("*.tar")) == [
        f"{s}-00000.tar" for s in ("test", "train", "val")
    ]


def test_a_sound_set_passes_the_check(tiny_shards: TinyShards) -> None:
    assert check_shards(tiny_shards.folder) == {"tars": 7, "clips": CLIPS, "lost": [], "damaged": [], "remote": []}
