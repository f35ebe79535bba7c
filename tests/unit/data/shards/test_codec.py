"""Encoded clips: closed GOPs of K frames, lossless sound, copies only of conforming sources."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from support.media import TINY_CLIP, shown, tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.shards.chunk_codec import as_floats, unpack_samples, unpack_video
from mirasol.data.shards.codec import conforms, copy_videos, pack_audio, pack_video
from mirasol.data.world.scene import SAMPLE_RATE, sample_clip
from mirasol.data.world.sound import samples
from mirasol.media import container as media
from mirasol.media.clip import ClipSpec
from mirasol.media.container import open_media
from mirasol.media.decode import decode_clip


def pictures(count: int = 4) -> np.ndarray:
    """A texture that moves, [count, 24, 16]."""
    y, x = np.mgrid[:16, :16]
    luma = [120 + 60 * np.sin((x + 2 * t) / 3) * np.cos(y / 4) for t in range(count)]
    return np.stack([np.concatenate([f, np.full((8, 16), 128)]) for f in luma]).astype(np.uint8)


def test_frames_come_back_nearly_as_they_were() -> None:
    error = unpack_video(pack_video(pictures(), TINY_CLIP, 18), TINY_CLIP).astype(float) - pictures()
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB


def test_every_chunk_begins_with_its_own_key_frame() -> None:
    with av.open(io.BytesIO(pack_video(pictures(8), TINY_CLIP, 18))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert [p.is_keyframe for p in packets] == [True, False] * 4
    assert all(p.pts == p.dts for p in packets)


def test_equal_frames_give_equal_bytes() -> None:
    assert pack_video(pictures(), TINY_CLIP, 18) == pack_video(pictures(), TINY_CLIP, 18)


@pytest.mark.parametrize("size", [16, 224])
def test_the_bytes_do_not_depend_on_what_memory_held_before(size: int) -> None:
    program = f"""
import hashlib, numpy as np
from mirasol.data.shards.codec import pack_video
from mirasol.media.clip import ClipSpec
noise = np.random.default_rng(0).normal(0, 4, (8, {size} * 3 // 2, {size}))
waves = 120 + 60 * np.sin(np.arange({size}) / 7 + 3 * np.arange(8)[:, None, None])
print(hashlib.sha256(pack_video((waves + noise).astype(np.uint8), ClipSpec(size={size}), 18)).hexdigest())
"""
    hashes = set()
    for fill in ("1", "2"):  # glibc fills what it hands out and what it takes back
        environment = os.environ | {"MALLOC_PERTURB_": fill, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        hashes.add(done.stdout)
    assert len(hashes) == 1


@pytest.mark.parametrize("length", [1, 100, 4096, 4097, 20_000])
def test_sound_comes_back_to_half_a_step(length: int) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, length).astype(np.float32)
    np.testing.assert_allclose(as_floats(unpack_samples(pack_audio(wave, 8000))), wave, atol=1 / 32768)


def test_sound_of_16_bits_comes_back_exactly() -> None:
    wave = np.round(tone(1) * 32768).astype(np.float32) / 32768
    np.testing.assert_array_equal(as_floats(unpack_samples(pack_audio(wave, 8000))), wave)


def test_too_loud_sound_is_clipped_and_does_not_wrap() -> None:
    loud = pack_audio(np.array([1.5, -1.5], np.float32), 8000)
    assert as_floats(unpack_samples(loud)).tolist() == [32767 / 32768, -1.0]


def test_sound_whose_bytes_look_like_the_start_of_a_frame_is_read() -> None:
    sound = samples(sample_clip(2, "train", 4772))  # FFmpeg's reader finds nine frames where there are eight
    packed = pack_audio(as_floats(sound), SAMPLE_RATE)
    with av.open(io.BytesIO(packed), "r", format="flac") as container, pytest.raises(av.InvalidDataError):
        list(container.decode(audio=0))
    np.testing.assert_array_equal(unpack_samples(packed), sound)


def test_sound_of_which_a_frame_is_damaged_is_refused() -> None:
    packed = pack_audio(tone(2), 8000)
    frame = packed.index(b"\xff\xf8", len(packed) // 2)
    with pytest.raises(ValueError, match="Invalid data"):
        unpack_samples(packed[: frame + 4] + bytes(4) + packed[frame + 8 :])


def copies(path: Path, *spans: tuple[float | None, float | None], spec: ClipSpec = TINY_CLIP) -> list[bytes | None]:
    with open_media(path) as container:
        return copy_videos(container, spans, spec) if conforms(container, spec) else [None] * len(spans)


def test_a_conforming_source_is_copied(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8, size=(16, 16), sound=tone(1))
    for start, numbers in ((None, [0, 1, 2, 3]), (0.5, [4, 5, 6, 7])):
        (copy,) = copies(path, (start, None))
        assert shown(unpack_video(copy, TINY_CLIP)) == numbers
        np.testing.assert_array_equal(unpack_video(copy, TINY_CLIP), decode_clip(path, start, None, TINY_CLIP).video)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (32, 32)},
        {"fps": 16},
        {"gop": 3},
        {"gop": 4},
        {"frames": 3},
        {"pixels": "yuv444p"},
        {"times": [0, 0.125, 0.27, 0.375]},
    ],
    ids=str,
)
def test_what_does_not_conform_is_not_copied(tmp_path: Path, changes: dict[str, object]) -> None:
    path = write_media(tmp_path / "a.mp4", **({"frames": 4, "size": (16, 16), "gop": 2} | changes))
    assert copies(path, (None, None)) == [None]


def test_the_clips_of_a_file_are_copied_in_any_order_and_as_if_alone(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8, size=(16, 16), sound=tone(1))
    spans = [(0.5, None), (0.125, None), (None, None), (0.0, 0.5), (0.25, None)]
    assert copies(path, *spans) == [copies(path, span)[0] for span in spans]


def test_a_start_between_chunks_is_not_copied(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8, size=(16, 16))
    assert copies(path, (0.125, None)) == [None]
    assert copies(path, (None, 0.25)) == [None]  # the clip ends before chunk T does
    assert copies(path, (None, None), spec=dataclasses.replace(TINY_CLIP, sampling="spread")) == [None]


def test_damaged_packets_are_not_copied(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=4, size=(16, 16))
    with av.open(str(path)) as container:
        last = bytes(list(container.demux(video=0))[3])
    path.write_bytes(path.read_bytes().replace(last[5:], b"\xff" * len(last[5:])))
    assert copies(path, (None, None)) == [None]


def test_without_the_encoder_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "has_codec", lambda name, mode: False)
    with pytest.raises(MirasolError, match=r"no libx264 encoder.*pip install"):
        pack_video(pictures(), TINY_CLIP, 18)
    with pytest.raises(MirasolError, match=r"no flac encoder.*pip install"):
        pack_audio(tone(0.5), 8000)
