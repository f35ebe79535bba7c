"""The world's pictures and files: exact drawing, one closed GOP per chunk, a lossless track, equal bytes."""

from __future__ import annotations

import hashlib
import io
from itertools import count

import av
import numpy as np
import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.world import video as world_media
from mirasol.data.world.make import encode, render, render_yuv, sample_clip, samples
from mirasol.data.world.scene import FPS, FRAMES, FRAMES_PER_CHUNK, SAMPLE_RATE, SIZE, Scene
from mirasol.data.world.video import PALETTE


def first(kind: str) -> Scene:
    return next(s for s in (sample_clip(1, "train", i) for i in count()) if s.kind == kind)


def test_these_pictures_are_the_same_for_ever() -> None:
    digest = hashlib.sha256(b"".join(render_yuv(sample_clip(1, "train", i)).tobytes() for i in range(40)))
    assert digest.hexdigest() == GOLDEN_PICTURES


def test_these_files_are_the_same_with_this_pyav() -> None:
    digest = hashlib.sha256(b"".join(encode(sample_clip(1, "train", i)) for i in range(40)))
    assert digest.hexdigest() == GOLDEN_FILES, (
        "the encoders' output has changed, for a new PyAV perhaps: then data.dvc must be made again too"
    )


def test_vector_instructions_do_not_change_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [sample_clip(1, "test", i) for i in range(30)]
    fast = [encode(s) for s in scenes]
    monkeypatch.setattr(world_media, "X264", world_media.X264 + ":asm=0")
    assert [encode(s) for s in scenes] == fast


def test_one_closed_gop_per_chunk_and_no_b_frames() -> None:
    with av.open(io.BytesIO(encode(first("both")))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert [p.is_keyframe for p in packets] == [k % FRAMES_PER_CHUNK == 0 for k in range(FRAMES)]
    assert all(p.pts == p.dts for p in packets)


@pytest.mark.parametrize("chunk", range(4))
def test_a_chunk_decodes_by_itself(chunk: int) -> None:
    data = encode(first("both"))
    with av.open(io.BytesIO(data)) as container:
        whole = [f.to_ndarray() for f in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        container.seek(int(chunk * FRAMES_PER_CHUNK / FPS / stream.time_base), stream=stream)
        frame = next(container.decode(stream))
    assert np.array_equal(frame.to_ndarray(), whole[chunk * FRAMES_PER_CHUNK])


def test_the_file_holds_the_picture_and_the_exact_sound() -> None:
    scene = first("both")
    data = encode(scene)
    with av.open(io.BytesIO(data)) as container:
        pictures = np.stack([f.to_ndarray() for f in container.decode(video=0)])
        times = container.streams.video[0].average_rate
    with av.open(io.BytesIO(data)) as container:
        track = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert times == FPS and rate == SAMPLE_RATE
    assert np.abs(pictures.astype(int) - render_yuv(scene)).mean() < 1.0
    assert np.array_equal(track, samples(scene))


def test_a_trackless_clip_has_no_audio_and_a_silent_one_has_zeros() -> None:
    with av.open(io.BytesIO(encode(first("trackless")))) as container:
        assert not container.streams.audio
    with av.open(io.BytesIO(encode(first("silent")))) as container:
        assert not any(f.to_ndarray().any() for f in container.decode(audio=0))


def test_an_object_has_its_colour_before_its_flash_and_is_bright_and_larger_in_it() -> None:
    scene = next(s for s in (sample_clip(1, "train", i) for i in count()) if s.flashes and s.flashes[0].verb == "moves")
    thing = scene.flashes[0]
    planes = render_yuv(scene)
    flash = thing.flash or 0
    plain = flash + 2  # a chunk's third or last frame: the flash is over

    def pixel(k: int, dx: int = 0) -> tuple[int, int, int]:
        x, y = thing.path[k]
        chroma = planes[k, SIZE:].reshape(2, SIZE // 2, SIZE // 2)[:, y // 2, (x + dx) // 2]
        return int(planes[k, y, x + dx]), int(chroma[0]), int(chroma[1])

    assert pixel(plain) == PALETTE[thing.colour]
    assert pixel(flash)[0] > 220
    # The hue is paler and the same: nearer to grey on the same side of it.
    for bright, colour in zip(pixel(flash)[1:], PALETTE[thing.colour][1:], strict=True):
        assert abs(bright - 128) <= abs(colour - 128) // 3 + 1 and (bright - 128) * (colour - 128) >= 0


def test_the_ring_is_there_in_the_first_chunk_only() -> None:
    scene = next(s for s in (sample_clip(1, "train", i) for i in count()) if s.ring and s.large.verb == "moves")
    corner = render_yuv(scene)[:, 0, 0]
    luma = PALETTE[scene.ring or ""][0]
    assert corner.tolist() == [luma] * FRAMES_PER_CHUNK + [scene.background] * (FRAMES - FRAMES_PER_CHUNK)


def test_colours_are_well_apart_on_screen() -> None:
    """In RGB too, any two differ by half of the scale in some channel."""
    scenes = (sample_clip(1, "train", i) for i in range(200))
    rgb = {}
    for s in scenes:
        if s.large.verb == "moves" and s.large.flash_chunk != 3:
            x, y = s.large.path[-1]
            rgb[s.large.colour] = render(s)[-1, y, x].astype(int)
    assert len(rgb) == 6
    colours = list(rgb.values())
    assert all(np.abs(a - b).max() > 110 for i, a in enumerate(colours) for b in colours[:i])


def test_render_gives_rgb_frames() -> None:
    frames = render(first("both"))
    assert frames.shape == (FRAMES, SIZE, SIZE, 3) and frames.dtype == np.uint8


def test_a_missing_encoder_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_media, "VIDEO_CODEC", "no_such_encoder")
    with pytest.raises(MirasolError, match=r"no_such_encoder.*mirasol doctor"):
        encode(first("both"))


GOLDEN_PICTURES = "556a7e048136f34c0709e35d6ddfe061be0e01d3daf0f588ff20f4b3d939c373"
GOLDEN_FILES = "420f445077544cb6ff1c7ac08406b65579c182a8ad9a5b3977267b3feab30b91"
