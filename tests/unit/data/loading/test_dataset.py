"""Reading shards: the right clip, with and without the cache, and damage reported with tar and clip."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.media import TINY_CLIP, shown, tone, write_data, write_media
from support.shards import CLIPS, TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.contact_sheet import contact_sheet
from mirasol.data.loading.dataset import ClipArrays, ShardDataset
from mirasol.data.loading.decoded_cache import DecodedCache
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.format import DamagedClip
from mirasol.data.verify import check_shards
from mirasol.media.log_mel import SILENCE, clip_audio


@pytest.fixture
def shards(tiny_shards: TinyShards) -> ShardDataset:
    return ShardDataset(tiny_shards.folder, "train")


@pytest.fixture
def copy(tiny_shards: TinyShards, tmp_path: Path) -> Path:
    """A set that a test may damage."""
    return Path(shutil.copytree(tiny_shards.folder, tmp_path / "shards"))


def same(one: ClipArrays, other: ClipArrays) -> bool:
    arrays = ("video", "audio", "video_present", "audio_present")
    return all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays) and one.meta == other.meta


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def test_a_clip_has_its_frames_and_its_features(shards: ShardDataset) -> None:
    clip = shards.read(0)
    assert (clip.video.shape, clip.video.dtype) == ((2, 2, 24, 16), np.uint8)
    assert shown(clip.video.reshape(4, 24, 16)) == [0, 1, 2, 3]
    np.testing.assert_array_equal(clip.audio, clip_audio(shards.waveform(0), TINY_CLIP, 0.25, 2))
    assert clip.video_present.tolist() == clip.audio_present.tolist() == [True, True]
    np.testing.assert_allclose(shards.waveform(0), tone(0.5, hertz=200), atol=1e-4)


def test_clips_come_in_the_order_of_the_manifest(shards: ShardDataset) -> None:
    media = [shards.meta(i)["media"] for i in range(len(shards))]
    assert media == [f"media/{i}.{'flac' if i == 4 or i == 12 else 'mp4'}" for i in (0, 1, 4, 5, 8, 9, 12, 13)]


def test_what_is_absent_is_none_and_not_present(shards: ShardDataset) -> None:
    mute, blind = shards.read(1), shards.read(2)
    assert (mute.audio, blind.video, shards.waveform(1)) == (None, None, None)
    assert mute.audio_present.tolist() == blind.video_present.tolist() == [False, False]
    assert mute.video_present.all() and blind.audio_present.all()


def test_chunks_past_the_end_are_black_silent_and_not_present(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 4)
    write_media(data / "media/0.mp4", frames=2, size=(16, 16), sound=tone(0.25))
    build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(workers=1))
    clip = ShardDataset(tmp_path / "shards", "train").read(0)
    assert clip.video_present.tolist() == clip.audio_present.tolist() == [True, False]
    assert (clip.video[1, :, :16] == 16).all() and (clip.video[1, :, 16:] == 128).all()
    assert (clip.audio[1] == np.float32(SILENCE)).all()


def test_the_cache_gives_what_decoding_gives(tiny_shards: TinyShards, shards: ShardDataset, tmp_path: Path) -> None:
    cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path / "cache")
    for _ in range(2):
        assert all(same(cached.read(i), shards.read(i)) for i in range(len(shards)))


def test_the_cache_saves_decoding(tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
    cached.read(0)
    monkeypatch.setattr("mirasol.data.loading.dataset.unpack_video", None)
    assert cached.read(0).video is not None


def test_a_half_written_clip_is_decoded_again(tiny_shards: TinyShards, shards: ShardDataset, tmp_path: Path) -> None:
    cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path)
    cached.read(0), cached.read(1)
    (path,) = tmp_path.glob("*/train.clips")
    flip(path, DecodedCache(tmp_path / "x", "", "train", TINY_CLIP, 8).record // 2)  # in clip 0
    assert all(same(cached.read(i), shards.read(i)) for i in range(2))


def test_other_shards_have_another_cache(tmp_path: Path, tiny_shards: TinyShards, copy: Path) -> None:
    ShardDataset(tiny_shards.folder, "train", cache=tmp_path / "cache").read(0)
    (copy / "shards.json").write_text((copy / "shards.json").read_text() + " ")
    ShardDataset(copy, "train", cache=tmp_path / "cache").read(0)
    assert len(list((tmp_path / "cache").rglob("train.clips"))) == 1  # that of the old shards is gone


def test_a_split_above_the_budget_is_not_cached(tiny_shards: TinyShards, tmp_path: Path) -> None:
    ShardDataset(tiny_shards.folder, "train", cache=tmp_path, cache_bytes=1000).read(0)
    assert list(tmp_path.rglob("*.clips")) == []


def test_a_cache_that_cannot_be_written_is_left_out(
    tiny_shards: TinyShards, shards: ShardDataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    cached = ShardDataset(tiny_shards.folder, "train", cache=tmp_path / "file")
    assert same(cached.read(0), shards.read(0))


def test_a_set_goes_to_other_processes(shards: ShardDataset) -> None:
    shards.read(0)
    assert same(pickle.loads(pickle.dumps(shards)).read(3), shards.read(3))


def test_a_flipped_bit_is_told_with_tar_and_clip(copy: Path) -> None:
    shards = ShardDataset(copy, "train")
    _, entry = shards._places[3]
    flip(copy / "train-00001.tar", entry.places["mp4"][0] + 300)
    with pytest.raises(MirasolError, match=rf"train-00001\.tar: clip {shards.keys[3]}\.mp4 is damaged.*do not match"):
        shards.read(3)
    damaged = check_shards(copy)["damaged"]
    assert len(damaged) == 2 and damaged[1] == f"train-00001.tar: clip {shards.keys[3]}: mp4 is damaged"


def test_a_flipped_bit_in_a_text_is_told(copy: Path) -> None:
    """The JSON is still one: only the hash in the index knows."""
    path, shards = copy / "train-00000.tar", ShardDataset(copy, "train")
    data = path.read_bytes()
    at = data.index(b"answer 0", shards._places[1][1].places["json"][0])
    path.write_bytes(data[:at] + b"anzwer 0" + data[at + 8 :])
    with pytest.raises(
        DamagedClip, match=rf"clip {shards.keys[1]}\.json is damaged: the bytes do not match their hash"
    ):
        shards.meta(1)
    assert check_shards(copy)["lost"] == [shards.keys[1]]


def test_a_flipped_bit_in_the_hashes_of_an_index_is_told(copy: Path) -> None:
    path = copy / "train-00000.tar.idx.json"
    index = json.loads(path.read_text())
    index["json_sha256"][0] = "0" * 64
    path.write_text(json.dumps(index))
    assert check_shards(copy)["lost"] == [index["samples"][0][0]]


def test_an_index_of_an_earlier_version_is_read(copy: Path, shards: ShardDataset) -> None:
    for path in copy.glob("*.idx.json"):
        index = json.loads(path.read_text())
        del index["json_sha256"]
        path.write_text(json.dumps(index))
    assert same(ShardDataset(copy, "train").read(1), shards.read(1))
    assert check_shards(copy)["damaged"] == []


def test_a_shortened_tar_is_told_at_once(copy: Path) -> None:
    path = copy / "train-00000.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(MirasolError, match=r"train-00000\.tar has \d+ bytes, expected \d+.*dvc checkout"):
        ShardDataset(copy, "train")


def test_a_missing_tar_is_told_at_once(copy: Path) -> None:
    (copy / "train-00002.tar").unlink()
    with pytest.raises(MirasolError, match=r"train-00002\.tar is missing"):
        ShardDataset(copy, "train")
    assert check_shards(copy)["damaged"] == ["train-00002.tar: is missing"]


def test_clips_of_a_tar_without_its_index_are_lost_and_counted(copy: Path) -> None:
    keys = set(ShardDataset(copy, "train").keys_in("train-00001.tar"))
    (copy / "train-00001.tar.idx.json").unlink()
    found = check_shards(copy)
    assert (found["clips"], set(found["lost"])) == (CLIPS, keys)
    assert "not the index of a tar" in found["damaged"][0] and "3 clip(s) cannot be read" in found["damaged"][0]


def test_an_unfinished_set_is_no_set(copy: Path) -> None:
    (copy / "shards.json").unlink()
    with pytest.raises(MirasolError, match="make the shards with `dvc repro shards`"):
        ShardDataset(copy, "train")


def test_an_unknown_split_is_told(tiny_shards: TinyShards) -> None:
    with pytest.raises(MirasolError, match="no clip in the split dev"):
        ShardDataset(tiny_shards.folder, "dev")


def test_a_stranger_in_a_tar_is_told(copy: Path, tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "evil.pkl").write_bytes(b"x")
    with tarfile.open(copy / "val-00000.tar", "a") as tar:
        tar.add(tmp_path / "evil.pkl", "../evil.pkl")
    assert any("holds '../evil.pkl', which does not belong" in line for line in check_shards(copy)["damaged"])


def test_a_contact_sheet_shows_every_kind_of_clip(shards: ShardDataset, tmp_path: Path) -> None:
    (page,) = contact_sheet(shards, tmp_path / "look.png", clips=8)
    picture = page.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) > 20_000


def test_a_contact_sheet_of_an_unknown_clip_is_refused(shards: ShardDataset, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no clip 0000000000000000 in the split train"):
        contact_sheet(shards, tmp_path / "look.png", keys=["0" * 16])
