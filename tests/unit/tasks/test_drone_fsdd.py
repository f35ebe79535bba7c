"""The two real sets that `make real` trains on: names to rows, blocks to splits."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from support.media import SHARED, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, read_manifest
from mirasol.tasks.drone import SOUND_OF, import_drone
from mirasol.tasks.fsdd import import_fsdd


@pytest.fixture(scope="module")
def drone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Example]]:
    media = tmp_path_factory.mktemp("drone")
    for name in SOUND_OF:
        for number in range(1, 6):
            write_media(media / f"video/V_{name}_{number:03}.mp4", frames=4)
    for name in set(SOUND_OF.values()):
        for number in range(1, 6):
            write_media(media / f"audio/{name}_{number:03}.flac", sound=tone(0.5))
    out = tmp_path_factory.mktemp("out")
    import_drone(media, out)
    return out, read_manifest(out / "manifest.jsonl")


def test_a_joined_file_has_picture_and_sound(drone: tuple[Path, list[Example]]) -> None:
    out, rows = drone
    with av.open(str(out / rows[0].media)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    with av.open(str(out / rows[0].media)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 4000


def test_the_summary_says_that_the_pairing_is_constructed(drone: tuple[Path, list[Example]]) -> None:
    assert "joined by class" in json.loads((drone[0] / "import.json").read_text())["pairing"]


def test_sound_is_of_the_class_of_the_video(drone: tuple[Path, list[Example]]) -> None:
    for row in drone[1]:
        video, sound = Path(row.media).stem.split("+")
        assert sound.split("_")[0] == SOUND_OF[video.split("_")[1]]
        assert row.answers == (video.split("_")[1].lower(),)


def test_a_video_of_the_train_split_meets_several_sounds(drone: tuple[Path, list[Example]]) -> None:
    rows = [r for r in drone[1] if r.split == "train"]
    met = {group: {r.media for r in rows if r.group == group} for group in {r.group for r in rows}}
    assert {len(media) for media in met.values()} == {3}  # all three recordings of the block
    assert len({r.id for r in rows}) == len(rows)


def test_no_file_stands_in_two_splits(drone: tuple[Path, list[Example]]) -> None:
    splits: dict[str, set[str]] = {}
    for row in drone[1]:
        for part in Path(row.media).stem.split("+"):
            splits.setdefault(part, set()).add(row.split)
    assert {len(found) for found in splits.values()} == {1}


def test_splits_are_blocks_of_numbers(drone: tuple[Path, list[Example]]) -> None:
    numbers = {s: {int(r.group[-3:]) for r in drone[1] if r.split == s} for s in ("train", "val", "test")}
    assert max(numbers["train"]) < min(numbers["val"]) <= max(numbers["val"]) < min(numbers["test"])


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="point --media at the folder with video/ and audio/"):
        import_drone(tmp_path, tmp_path / "out")


def test_too_few_files_for_three_splits_are_refused(tmp_path: Path) -> None:
    write_media(tmp_path / "video/V_BIRD_001.mp4", frames=4)
    write_media(tmp_path / "audio/BACKGROUND_001.flac", sound=tone(0.5))
    with pytest.raises(MirasolError, match="class AIRPLANE has 0 files"):
        import_drone(tmp_path, tmp_path / "out")


def test_digits_go_by_the_published_split(tmp_path: Path) -> None:
    for name in ("3_theo_4.wav", "3_theo_5.wav", "3_theo_8.wav"):
        write_media(tmp_path / name, sound=tone(0.3), codec="pcm_s16le")
    splits = import_fsdd(tmp_path, tmp_path / "out")["splits"]
    assert {split: counts["examples"] for split, counts in splits.items()} == {"train": 1, "val": 1, "test": 1}
    rows = read_manifest(tmp_path / "out/manifest.jsonl")
    assert [(r.id, r.split, r.answers) for r in rows] == [
        ("3_theo_4", "test", ("three",)),
        ("3_theo_5", "val", ("three",)),
        ("3_theo_8", "train", ("three",)),
    ]


def test_a_folder_without_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="digit_speaker_index"):
        import_fsdd(tmp_path, tmp_path / "out")


@pytest.mark.skipif(not (SHARED / "fsdd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_the_real_digits_are_3000(tmp_path: Path) -> None:
    splits = import_fsdd(SHARED / "fsdd", tmp_path)["splits"]
    assert {split: counts["examples"] for split, counts in splits.items()} == {"train": 2520, "val": 180, "test": 300}


def test_importing_again_writes_no_file_that_the_cache_shares(tmp_path: Path) -> None:
    for index in (4, 5, 8):
        write_media(tmp_path / f"3_theo_{index}.wav", sound=tone(0.3), codec="pcm_s16le")
    import_fsdd(tmp_path, tmp_path / "out")
    file, cached = tmp_path / "out/media/3_theo_4.wav", tmp_path / "cached"
    os.link(file, cached)
    before = cached.read_bytes()
    write_media(tmp_path / "3_theo_4.wav", sound=tone(0.5), codec="pcm_s16le")
    import_fsdd(tmp_path, tmp_path / "out")
    assert cached.read_bytes() == before != file.read_bytes()


@pytest.mark.parametrize("importer", [import_drone, import_fsdd])
def test_the_built_in_world_is_not_overwritten(importer: Callable[[Path, Path], object], tmp_path: Path) -> None:
    (tmp_path / "families.json").write_text("{}")
    with pytest.raises(MirasolError, match="holds the built-in world"):
        importer(tmp_path, tmp_path)
