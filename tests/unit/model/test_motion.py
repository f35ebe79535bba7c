"""The camera's shift is found and taken out; what moved in the scene is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.model import random_batch, tiny_model
from torch import Tensor

from mirasol.model.motion import Motion, steadied

SIDE, FRAMES = 96, 8
SHIFTS = torch.tensor([[0, 0], [2, -1], [4, 3], [-3, 5], [0, 0], [1, 1], [-2, 0], [5, -4]])


@pytest.fixture
def motion() -> Motion:
    torch.manual_seed(0)
    return Motion(SIDE, (6, 6), 16, 12)


def scene(seed: int = 0) -> Tensor:
    """A picture of coarse blocks that is larger than the frame on all sides."""
    blocks = torch.randint(40, 220, (20, 20), generator=torch.Generator().manual_seed(seed))
    return blocks.repeat_interleave(7, 0).repeat_interleave(7, 1)


def filmed(pictures: list[Tensor], shifts: Tensor) -> Tensor:
    """Luma [1, K, SIDE, SIDE] of a camera that is shifted."""
    frames = [
        picture[16 - dy : 16 - dy + SIDE, 16 - dx : 16 - dx + SIDE]
        for picture, (dy, dx) in zip(pictures, shifts.tolist(), strict=True)
    ]
    return torch.stack(frames)[None].float()


def moved() -> list[Tensor]:
    """A square that moves to the right in the upper left cell."""
    pictures = []
    for index in range(FRAMES):
        picture = scene()
        picture[18:26, 17 + index : 25 + index] = 255
        pictures.append(picture)
    return pictures


def test_the_shift_of_every_frame_is_found(motion: Motion) -> None:
    found = motion.shifts(filmed([scene()] * FRAMES, SHIFTS))
    assert torch.equal(found[0], SHIFTS - SHIFTS[FRAMES // 2])


def test_a_resting_scene_stands_still_once_steadied(motion: Motion) -> None:
    luma = filmed([scene()] * FRAMES, SHIFTS)
    steady, seen = steadied(luma, motion.shifts(luma))
    assert float(((steady - steady[:, :1]) * seen).abs().max()) == 0.0


def test_a_shaking_camera_leaves_the_maps_of_a_resting_scene_at_their_floor(motion: Motion) -> None:
    luma = filmed([scene()] * FRAMES, SHIFTS)
    resting, _ = motion.maps(torch.zeros_like(luma), torch.ones(1, 1, SIDE, SIDE))
    shaken, _ = motion.maps(*steadied(luma, motion.shifts(luma)))
    assert torch.allclose(resting, shaken)


def test_the_cell_in_which_something_moves_has_the_largest_numbers(motion: Motion) -> None:
    luma = filmed(moved(), SHIFTS)
    local, _ = motion.maps(*steadied(luma, motion.shifts(luma)))
    assert int(local[0, :, -1].argmax()) == 0


def test_brightness_that_changes_is_no_shift(motion: Motion) -> None:
    luma = filmed([scene() + index for index in range(FRAMES)], torch.zeros(FRAMES, 2, dtype=torch.long))
    assert not motion.shifts(luma).any()


def test_cells_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="cells of 6 pixels, expected a multiple of 4"):
        Motion(SIDE, (8, 8), 6, 12)


def test_a_chunk_moves_by_itself() -> None:
    """What a stream computes of one chunk is what a clip computes of it."""
    model = tiny_model(size=32, tubes=((4, 16, 16),), tube_strides=((4, 16, 16),), patch=0, motion=True)
    video = random_batch(model.config).video
    assert torch.allclose(model.video_tubes(video)[:, 2:3], model.video_tubes(video[:, 2:3]), atol=1e-6)


def test_looks_are_left_out_of_some_training_clips_and_of_none_in_eval() -> None:
    model = tiny_model(size=32, tubes=((4, 16, 16),), tube_strides=((4, 16, 16),), patch=0, motion=True)
    video = random_batch(model.config, clips=16).video
    shown = model.video_tubes(video)
    model.train()
    torch.manual_seed(1)
    equal = (model.video_tubes(video) == shown).flatten(1).all(1)
    assert 0 < int(equal.sum()) < 16


@pytest.mark.slow
def test_the_exported_graph_finds_the_same_shifts(motion: Motion, tmp_path: Path) -> None:
    """The exporter drops `divisor_override` of a pooling, and noise shows every difference."""
    video = torch.randint(0, 256, (1, 1, FRAMES, SIDE * 3 // 2, SIDE), dtype=torch.uint8)
    program = torch.onnx.export(motion.eval(), (video,), dynamo=True, opset_version=18)
    program.save(str(tmp_path / "motion.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "motion.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: video.numpy()})
    assert np.allclose(found, motion(video).detach().numpy(), atol=1e-5)
