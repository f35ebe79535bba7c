"""Frontend, tubes and audio patches."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, tiny_config, tiny_model

from mirasol.model.audio import Audio
from mirasol.model.tubes import Lattice, VideoTubes
from mirasol.model.yuv import colour, downsample, planes


def to_rgb(video):
    """The picture that the tubes never make: uint8 [..., K, H*3/2, W] -> [..., 3, K, H, W] in -1..1."""
    luma, chroma = planes(video, torch.float32)
    return luma + colour(chroma).repeat_interleave(2, -2).repeat_interleave(2, -1)


def yuv(y, u, v, size=8):
    """A frame of one colour, uint8 [1, H*3/2, W]."""
    rows = [torch.full((n, size), value, dtype=torch.uint8) for n, value in ((size, y), (size // 4, u), (size // 4, v))]
    return torch.cat(rows)[None]


@pytest.mark.parametrize(
    ("frame", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (255, 0, 0)),  # the well-known BT.601 primaries
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
    ],
)
def test_known_colours(frame, rgb):
    out = to_rgb(yuv(*frame))
    assert out.shape == (3, 1, 8, 8)
    levels = (out + 1) * 127.5
    assert torch.allclose(levels, torch.tensor(rgb).float().view(3, 1, 1, 1).expand_as(levels), atol=2.0)


def test_chroma_lands_where_it_belongs():
    frame = yuv(128, 128, 128)
    frame[0, 8, 5] = 240  # U rows hold two rows of chroma each: row 0, second half, column 1 -> chroma (1, 1)
    blue = to_rgb(frame)[2, 0]
    assert (blue > 0.5).nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_downsample_is_the_mean_of_the_picture():
    video = random_batch(tiny_config()).video
    rgb = to_rgb(video)
    expected = torch.nn.functional.avg_pool2d(rgb.flatten(0, 3), 4).view(*rgb.shape[:-2], 4, 4)
    assert torch.allclose(downsample(video, 4, torch.float32), expected, atol=1e-5)


def test_other_frames_are_refused():
    with pytest.raises(ValueError, match=r"torch\.float32, expected torch\.uint8"):
        planes(torch.zeros(1, 12, 8), torch.float32)
    with pytest.raises(ValueError, match="8 rows of 8"):
        planes(torch.zeros(1, 8, 8, dtype=torch.uint8), torch.float32)


def test_tubes_equal_a_strided_convolution_over_rgb():
    config = tiny_config(tubes=((2, 4, 8), (4, 6, 2)), tube_strides=((2, 4, 8), (4, 8, 4)), patch=8)
    tubes = VideoTubes(config)
    video = random_batch(config).video
    rgb = to_rgb(video).flatten(0, 1)
    parts = []
    for lattice, project in zip(tubes.lattices, tubes.projections, strict=True):
        weight = project.weight.view(-1, 3, *lattice.shape)
        parts.append(torch.nn.functional.conv3d(rgb, weight, project.bias, stride=lattice.stride))
    expected = torch.cat([p.flatten(2).transpose(1, 2) for p in parts], 1).unflatten(0, video.shape[:2])
    assert tubes.tokens == expected.shape[2] == 2 * 4 * 2 + 1 * 2 * 4 + 4
    assert torch.allclose(tubes(video), expected + tubes.positions, atol=1e-5)


def test_the_last_tube_needs_no_whole_stride():
    lattice = Lattice.within((2, 4, 4), (3, 8, 8), (5, 12, 12))
    assert lattice.counts == (2, 2, 2)
    x = torch.arange(5 * 12 * 12.0).view(1, 5, 12, 12)
    last = lattice.cut(x)[-1].view(2, 4, 4)
    assert torch.equal(last, x[0, 3:5, 8:12, 8:12])


@pytest.mark.parametrize(
    ("shape", "stride", "message"),
    [
        ((8, 8, 8), (8, 8, 8), "8 frames long, a chunk has 4"),
        ((4, 32, 32), (4, 32, 32), "larger than the 16x16 frame"),
        ((4, 8, 8), (4, 4, 8), "tubes overlap"),
    ],
)
def test_tubes_that_do_not_fit_are_refused(shape, stride, message):
    with pytest.raises(ValueError, match=message):
        Lattice.within(shape, stride, (4, 16, 16))


def test_odd_tubes_are_refused():
    with pytest.raises(ValueError, match="expected even heights and widths"):
        VideoTubes(tiny_config(tubes=((4, 5, 8),), tube_strides=((4, 6, 8),)))


def test_audio_patches_cover_time_then_mels():
    config = tiny_config(audio_patch=(4, 4), audio_layers=0)
    audio = Audio(config)
    x = torch.zeros(1, 1, 8, 8)
    before = audio(x)
    x[0, 0, 5, 6] = 1.0  # second stretch of columns, second band of mels: token 3
    changed = (audio(x) != before).any(-1)[0, 0]
    assert changed.tolist() == [False, False, False, True]


def test_audio_patch_larger_than_the_chunk_is_refused():
    with pytest.raises(ValueError, match="16 columns x 8 mels is larger than a chunk's 8 x 8"):
        Audio(tiny_config(audio_patch=(16, 8)))


def test_positions_tell_all_tokens_apart():
    tubes = tiny_model().video_tubes
    distance = torch.cdist(tubes.positions, tubes.positions) + torch.eye(tubes.tokens) * 9
    assert distance.min() > 0.1
