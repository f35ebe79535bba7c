"""A source gives the chunks of the loader, one by one and in bounded memory."""

from __future__ import annotations

import dataclasses
import gc
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.media import TINY_CLIP, shown, tone, write_media
from support.shards import TinyShards, tiny_shards  # noqa: F401

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import read_manifest
from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError
from mirasol.media.decode import decode_clip
from mirasol.media.log_mel import chunk_edge
from mirasol.runtime.features import ChunkFeatures
from mirasol.runtime.sources import resample
from mirasol.runtime.sources.files import Chunk, FileSource, FolderSource, open_source

LONG = dataclasses.replace(TINY_CLIP, chunks=8)  # 2 s


def gathered(chunks: list[Chunk]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """All frames and all samples of ``chunks``."""
    frames = [chunk.video for chunk in chunks if chunk.video is not None]
    samples = [chunk.samples for chunk in chunks if chunk.samples is not None]
    return np.concatenate(frames) if frames else None, np.concatenate(samples) if samples else None


def assert_like_the_loader(path: Path, clip: ClipSpec, start: float | None = None, end: float | None = None) -> None:
    """The chunks of a stream are those of ``decode_clip``, sound within the rounding to 16 bits."""
    expected = decode_clip(path, start, end, clip)
    chunks = [chunk for chunk, _ in zip(FileSource(path, clip, start, end), range(clip.chunks), strict=False)]
    assert [chunk.index for chunk in chunks] == list(range(expected.chunks))
    assert [chunk.video is not None for chunk in chunks] == [i < expected.video_chunks for i in range(expected.chunks)]
    assert [chunk.samples is not None for chunk in chunks] == [
        i < expected.audio_chunks for i in range(expected.chunks)
    ]
    frames, samples = gathered(chunks)
    if frames is not None and expected.video is not None:
        assert np.array_equal(frames, expected.video[: len(frames)])
    if samples is not None and expected.waveform is not None:
        assert np.abs(samples - expected.waveform[: len(samples)]).max() <= 1 / 32768


SOUND = tone(2.0)
FILES = {
    "plain": {"frames": 16, "sound": SOUND},
    "wide and fast": {"frames": 60, "fps": 30, "size": (64, 32), "sound": SOUND},
    "uneven times": {"frames": 8, "times": (0, 0.1, 0.2, 0.7, 0.8, 1.3, 1.4, 1.9), "sound": SOUND},
    "ntsc": {"frames": 50, "fps": Fraction(30000, 1001)},
    "sound of another rate": {"frames": 16, "sound": tone(2.0, rate=44100), "rate": 44100},
    "stereo": {"frames": 16, "sound": np.stack([SOUND, -0.5 * SOUND])},
    "lossy sound": {"frames": 16, "sound": tone(2.0, rate=48000), "rate": 48000, "codec": "mp2"},
    "sound ends early": {"frames": 16, "sound": tone(0.9)},
    "picture ends early": {"frames": 7, "sound": SOUND},
    "sound starts late": {"frames": 16, "sound": tone(1.0), "sound_from": 0.6},
}


@pytest.mark.parametrize("name", FILES)
def test_chunks_are_the_loader_s(name: str, tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", **FILES[name])
    assert_like_the_loader(path, LONG)
    assert_like_the_loader(path, dataclasses.replace(LONG, frames_per_chunk=1))


@pytest.mark.parametrize(("start", "end"), [(0.3, None), (1.0, None), (0.0, 0.9), (0.75, 1.4), (1.1, 1.25)])
def test_a_part_of_a_file_is_the_loader_s(start: float, end: float | None, tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=60, fps=30, gop=15, sound=SOUND)
    clip = dataclasses.replace(LONG, frames_per_chunk=1)
    assert_like_the_loader(path, clip, start, end)


def test_spread_chunks_are_the_loader_s(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mp4", frames=37, fps=10, sound=tone(3.7))
    assert_like_the_loader(path, dataclasses.replace(TINY_CLIP, sampling="spread"))


def test_sound_alone(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.flac", sound=SOUND)
    assert_like_the_loader(path, LONG)
    assert all(chunk.video is None for chunk in FileSource(path, LONG))


def test_features_from_a_file_are_those_of_the_shards(tiny_shards: TinyShards) -> None:  # noqa: F811
    media = {row.media for row in read_manifest(tiny_shards.data / "manifest.jsonl") if row.split == "train"}
    shards = ShardDataset(tiny_shards.folder, "train")
    assert len(shards) == len(media)
    for number in range(len(shards)):
        clip = shards.read(number)
        features = ChunkFeatures(TINY_CLIP)
        chunks = list(FileSource(tiny_shards.data / clip.meta["media"], TINY_CLIP))
        inputs = [features.push(chunk.video, chunk.samples) for chunk in chunks]
        assert [i.video_present for i in inputs] == clip.video_present.tolist()
        assert [i.audio_present for i in inputs] == clip.audio_present.tolist()
        if clip.video is not None:
            assert np.array_equal(np.concatenate([i.video for i in inputs]), clip.video)
        if clip.audio is not None:
            assert np.abs(np.concatenate([i.audio for i in inputs]) - clip.audio).max() <= 1e-5


def test_a_stream_goes_on_past_the_clips_of_the_training(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=40, sound=tone(5.0))
    chunks = list(FileSource(path, TINY_CLIP))
    assert [chunk.end for chunk in chunks] == [0.25 * (i + 1) for i in range(20)]
    frames, samples = gathered(chunks)
    assert frames is not None and samples is not None
    assert shown(frames) == [i % 16 for i in range(40)]
    assert len(samples) == 5 * TINY_CLIP.sample_rate


def test_what_waits_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # all sound behind all pictures: read through one handle, the whole picture would have to wait
    path = write_media(tmp_path / "clip.mkv", frames=400, sound=tone(50.0))
    waiting = []
    frames_taken, sound_taken = resample.StreamFrameResampler.take, resample.StreamAudioResampler.take

    def take_frames(self):
        waiting.append(len(self.frames))
        return frames_taken(self)

    def take_sound(self, low, high):
        waiting.append(sum(len(block) for _, block in self.blocks) / TINY_CLIP.sample_rate * TINY_CLIP.fps)
        return sound_taken(self, low, high)

    monkeypatch.setattr(resample.StreamFrameResampler, "take", take_frames)
    monkeypatch.setattr(resample.StreamAudioResampler, "take", take_sound)
    assert sum(1 for _ in FileSource(path, TINY_CLIP)) == 200
    assert max(waiting) <= 8  # frames, or their time in sound: one second


def test_decoded_frames_are_let_go_without_the_garbage_collector(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=100, size=(64, 32))
    gc.collect()
    gc.disable()
    try:
        chunks = sum(1 for _ in FileSource(path, TINY_CLIP))
        large = sum(type(o) is av.VideoFrame and o.width == 64 for o in gc.get_objects())
    finally:
        gc.enable()
    assert chunks == 50
    assert large <= 1


def test_an_unfinished_stream_closes_its_file(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=16, sound=SOUND)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        stream = iter(FileSource(path, TINY_CLIP))
        next(stream)
        stream.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_chunks_of_no_whole_number_of_samples_do_not_drift(tmp_path: Path) -> None:
    clip = dataclasses.replace(TINY_CLIP, fps=7.0)
    path = write_media(tmp_path / "clip.flac", sound=tone(6.0))
    for chunk in FileSource(path, clip):
        edges = [chunk_edge(chunk.index + i, clip.chunk_seconds, clip.sample_rate) for i in (0, 1)]
        assert len(chunk.samples) == edges[1] - edges[0]


def test_a_folder_is_one_stream_in_the_order_of_names(tmp_path: Path) -> None:
    write_media(tmp_path / "b.mkv", frames=8, sound=tone(1.0))
    write_media(tmp_path / "a.mkv", frames=4)
    (tmp_path / "notes.txt").write_text("no media")
    chunks = list(open_source(tmp_path, TINY_CLIP))
    assert [chunk.index for chunk in chunks] == list(range(6))
    assert [chunk.samples is not None for chunk in chunks] == [False] * 2 + [True] * 4
    frames, _ = gathered(chunks)
    assert frames is not None
    assert shown(frames) == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]


def test_a_folder_without_media_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="holds no media file"):
        open_source(tmp_path, TINY_CLIP)


def test_files_of_a_folder_that_cannot_be_used_are_skipped_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.mp4").write_text("no media")
    write_media(tmp_path / "b.mkv", frames=4)
    write_media(tmp_path / "c.mkv", frames=4)
    os.truncate(write_media(tmp_path / "d.mp4", frames=40), 2000)  # a recorder was cut off
    chunks = list(open_source(tmp_path, TINY_CLIP))
    assert [chunk.index for chunk in chunks] == list(range(4))
    unreadable = "skipped: cannot be opened as video or audio: Invalid data found when processing input"
    assert caplog.messages == [
        f"{tmp_path / 'a.mp4'}: {unreadable}",
        f"{tmp_path / 'd.mp4'}: {unreadable}",
        "2 of 4 files were skipped: a.mp4, d.mp4",
    ]


def test_a_file_of_a_folder_that_breaks_off_is_used_as_far_as_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = [i / 8 for i in range(8)] + [9000 + i / 8 for i in range(8)]
    write_media(tmp_path / "a.mkv", frames=16, size=(16, 16), times=times)
    write_media(tmp_path / "b.mkv", frames=4)
    chunks = list(open_source(tmp_path, TINY_CLIP))
    frames, _ = gathered(chunks)
    assert frames is not None and shown(frames)[-4:] == [0, 1, 2, 3]
    used = len(chunks) - 2
    assert used in (3, 4)
    assert caplog.messages[0].startswith(
        f"{tmp_path / 'a.mkv'}: damaged, {used} chunks of it were used: the time stamps of the pictures jump"
    )
    assert caplog.messages[1:] == ["1 of 2 files were damaged, and used as far as they go: a.mkv"]


def test_a_damaged_packet_in_a_file_of_a_folder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_media(tmp_path / "a.mp4", frames=80, sound=tone(10.0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)
    assert len(list(open_source(tmp_path, TINY_CLIP))) == 40
    assert "a.mp4: damaged, 40 chunks of it were used: " in caplog.messages[0]


def test_a_folder_of_which_nothing_can_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no media")
    write_media(tmp_path / "b.mkv", frames=1)
    with pytest.raises(MirasolError, match=r"none of its 2 media files .*: a\.mp4: cannot.*; b\.mkv: 0\.125 s"):
        list(open_source(tmp_path, TINY_CLIP))


def test_a_folder_has_no_whole_to_spread_over(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="name one file"):
        FolderSource(tmp_path, dataclasses.replace(TINY_CLIP, sampling="spread"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nowhere\.mp4: no such file"):
        open_source(tmp_path / "nowhere.mp4", TINY_CLIP)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be opened as video or audio"):
        open_source(path, TINY_CLIP)


def test_a_file_shorter_than_a_chunk(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=1, sound=tone(0.1))
    with pytest.raises(MediaError, match=r"0\.125 s can be used, shorter than one chunk of 0\.25 s"):
        list(open_source(path, TINY_CLIP))


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.6), (1.0, 0.5)])
def test_a_part_shorter_than_a_chunk(start: float, end: float, tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=16)
    with pytest.raises(MediaError, match="one chunk is"):
        FileSource(path, TINY_CLIP, start, end)


def test_a_start_past_the_end(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=16, sound=SOUND)
    with pytest.raises(MediaError, match="nothing in it can be decoded"):
        list(FileSource(path, TINY_CLIP, 60.0))


def test_a_truncated_file_gives_what_it_holds(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=160, sound=tone(20.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    chunks = list(FileSource(path, TINY_CLIP))
    assert 10 < len(chunks) < 80
