"""One chunk of a clip: exactly its frames, from any mp4 of the shards, and errors for other files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from support.media import TINY_CLIP, tone, write_media
from support.shards import TinyShards

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.shards.chunk_codec import packets_of, unpack_chunk, unpack_video
from mirasol.data.shards.codec import copy_videos, pack_video
from mirasol.data.shards.format import DamagedClip
from mirasol.media.clip import ClipSpec
from mirasol.media.container import open_media

SPEC = ClipSpec(fps=8.0, chunks=5, frames_per_chunk=3, size=32)


@pytest.fixture(scope="module")
def packed() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (SPEC.frames, 48, 32), np.uint8)
    return pack_video(noise, SPEC, 20)


def test_every_chunk_is_what_decoding_the_whole_gives(packed: bytes) -> None:
    whole = unpack_video(packed, SPEC)
    for chunk in range(SPEC.chunks):
        np.testing.assert_array_equal(unpack_chunk(packed, chunk, SPEC), whole[3 * chunk : 3 * chunk + 3])


def test_the_packets_are_those_that_ffmpeg_finds(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(packed)
    with open_media(tmp_path / "a.mp4") as container:
        expected = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    assert packets_of(packed)[1] == expected


def test_chunks_of_a_copied_clip(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8, size=(16, 16), sound=tone(1))
    with open_media(path) as container:
        (copy,) = copy_videos(container, [(0.5, None)], TINY_CLIP)
    for chunk in range(2):
        found = unpack_chunk(copy, chunk, TINY_CLIP)
        np.testing.assert_array_equal(found, unpack_video(copy, TINY_CLIP)[2 * chunk : 2 * chunk + 2])


@pytest.mark.parametrize("chunk", [-1, 5])
def test_a_chunk_that_is_not_there_is_told(packed: bytes, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"no chunk {chunk}: the video has 15 frames in chunks of 3"):
        unpack_chunk(packed, chunk, SPEC)


def test_damaged_bytes_are_an_error_and_no_crash(packed: bytes) -> None:
    draw = np.random.default_rng(1)
    tables = packed.index(b"moov")
    for number in range(300):
        data = np.frombuffer(packed, np.uint8).copy()
        at = draw.integers(tables if number % 2 else 0, len(data), 3)
        data[at] ^= (1 << draw.integers(0, 8, 3)).astype(np.uint8)
        with contextlib.suppress(ValueError):
            assert unpack_chunk(data.tobytes(), 2, SPEC).shape == (3, 48, 32)
    with pytest.raises(ValueError, match="boxes"):
        unpack_chunk(packed[: tables - 4], 0, SPEC)


def test_a_shard_gives_one_chunk_of_a_clip(tiny_shards: TinyShards) -> None:
    shards = ShardDataset(tiny_shards.folder, "train")
    index = next(i for i in range(len(shards)) if shards.meta(i)["has_video"])
    np.testing.assert_array_equal(shards.chunk(index, 1), shards.arrays(index).video[1].reshape(2, 24, 16))
    with pytest.raises(DamagedClip, match="no chunk 7"):
        shards.chunk(index, 7)
