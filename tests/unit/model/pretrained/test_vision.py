"""ViT checkpoints: the same function where it is exact, a reason where it is not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from support.model import tiny_config
from support.openweights import timm_vit, to_hugging_face, vit_blocks

from mirasol.model.config import Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.resize import resample, resize_matrix
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, Found
from mirasol.model.pretrained.vision import Pixels, read_vision

SIZES = Sizes(layers=2, width=24, hidden=48, heads=2, head=12, eps=1e-6)
HALF = Pixels((0.5,) * 3, (0.5,) * 3, "test")
IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "test")


def new_model(**changes: object) -> Mirasol:
    torch.manual_seed(0)
    return Mirasol(tiny_config(vit=SIZES, **changes)).eval()


def started(model: Mirasol, found: Found) -> Mirasol:
    assert found.problems == []
    model.load_state_dict(model.state_dict() | found.tensors)
    return model.double()


def double(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.double() for key, tensor in tensors.items()}


@pytest.mark.parametrize("layout", [dict, to_hugging_face], ids=["timm", "hugging face"])
def test_the_blocks_are_the_files_blocks(layout) -> None:
    file = timm_vit(SIZES, patch=8, places=4)
    del file["pos_embed"]  # then the residual stream keeps its scale
    model = new_model()
    started(model, read_vision(layout(file), {}, HALF, model))
    tokens = torch.randn(9, 24, dtype=torch.float64)
    expected = vit_blocks(tokens, double(file), SIZES)
    torch.testing.assert_close(model.vit(tokens[None, None])[0, 0], expected, rtol=0, atol=1e-6)


def test_a_scaled_stream_is_the_same_function() -> None:
    file, model = timm_vit(SIZES, patch=8, places=4), new_model()
    found = read_vision(file, {}, HALF, model)
    ours = float(model.video_tubes.positions.square().mean().sqrt())
    places = file["pos_embed"][0, 1:]
    scale = ours / float((places - places.mean(0)).square().mean().sqrt())
    assert abs(scale - 1) > 0.1, "else this shows nothing"
    started(model, found)
    tokens = torch.randn(9, 24, dtype=torch.float64)
    expected = vit_blocks(tokens, double(file), SIZES)
    torch.testing.assert_close(model.vit(tokens[None, None] * scale)[0, 0], expected, rtol=0, atol=1e-4)


def test_layer_scale_is_folded_into_what_it_scales() -> None:
    file, model = timm_vit(SIZES, patch=8, places=4), new_model()
    del file["pos_embed"]
    plain = {key: tensor.clone() for key, tensor in file.items()}
    for i in range(2):
        for gamma, name in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            file[f"blocks.{i}.{gamma}.gamma"] = gain = torch.rand(24) + 0.1
            plain[f"blocks.{i}.{name}.weight"] *= gain[:, None]
            plain[f"blocks.{i}.{name}.bias"] *= gain
    started(model, read_vision(file, {}, HALF, model))
    tokens = torch.randn(9, 24, dtype=torch.float64)
    expected = vit_blocks(tokens, double(plain), SIZES)
    torch.testing.assert_close(model.vit(tokens[None, None])[0, 0], expected, rtol=0, atol=1e-6)


def test_patches_of_a_picture_are_the_files_patches_of_the_same_pixels() -> None:
    file, model = timm_vit(SIZES, patch=8, places=4), new_model()
    places, fixed = file["pos_embed"][0, 1:], model.video_tubes.positions.clone()
    started(model, read_vision(file, {}, IMAGENET, model))
    scale = float(fixed.square().mean().sqrt()) / float((places - places.mean(0)).square().mean().sqrt())
    video = torch.randint(0, 256, (1, 1, 4, 24, 16), dtype=torch.uint8)
    pixels = rgb_of(video[0, 0, 0])
    normalised = (pixels - torch.tensor(IMAGENET.mean)[:, None, None]) / torch.tensor(IMAGENET.std)[:, None, None]
    weight, bias = file["patch_embed.proj.weight"].double(), file["patch_embed.proj.bias"].double()
    expected = F.conv2d(normalised[None].double(), weight, bias, stride=8)[0].flatten(1).T  # [4, d]
    tokens = model.video_tubes(video)[0, 0, -4:] - fixed[-4:]  # the 2D patches come last
    torch.testing.assert_close(tokens / scale - places.mean(0).double(), expected, rtol=0, atol=1e-4)


def rgb_of(frame: torch.Tensor) -> torch.Tensor:
    """A planar frame [H*3/2, W] as RGB [3, H, W] in 0..1, BT.601 limited range, chroma repeated."""
    frame = frame.double()
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    y = (frame[:height] - 16) / 219
    u, v = frame[height:].reshape(2, height // 2, width // 2).repeat_interleave(2, 1).repeat_interleave(2, 2) - 128
    u, v = u / 224, v / 224
    return torch.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u])


def test_a_tube_gives_a_still_picture_the_token_of_the_picture() -> None:
    kernel = torch.randn(5, 3, 1, 8, 8, dtype=torch.float64)
    picture = torch.randn(3, 8, 8, dtype=torch.float64)
    tube = resample(kernel, (4, 8, 8))
    token = torch.einsum("dcthw,chw->d", tube, picture)
    torch.testing.assert_close(token, torch.einsum("dchw,chw->d", kernel[:, :, 0], picture))


def test_a_larger_patch_gives_an_enlarged_picture_the_same_token() -> None:
    kernel = torch.randn(5, 3, 1, 4, 4, dtype=torch.float64)
    picture = torch.randn(3, 4, 4, dtype=torch.float64)
    enlarged = F.interpolate(picture[None], size=(6, 6), mode="bicubic", antialias=True)[0]
    token = torch.einsum("dchw,chw->d", resample(kernel, (1, 6, 6))[:, :, 0], enlarged)
    torch.testing.assert_close(token, torch.einsum("dchw,chw->d", kernel[:, :, 0], picture))


def test_resizing_keeps_a_plain_row_plain() -> None:
    for have, want in ((1, 4), (4, 1), (14, 16), (16, 4)):
        torch.testing.assert_close(resize_matrix(have, want).sum(1), torch.ones(want, dtype=torch.float64))


def test_every_tube_starts_from_the_patch_and_says_how() -> None:
    model = new_model()
    found = read_vision(timm_vit(SIZES, patch=8, places=4), {}, HALF, model)
    assert found.problems == []
    assert {name for name in found.tensors if name.startswith(("vit.", "video_tubes."))} == {
        name for name, _ in model.named_parameters() if name.startswith(("vit.", "video_tubes."))
    }
    assert [found.sources[f"video_tubes.projections.{i}.weight"][0] for i in (0, 1)] == [INTERPOLATED, LOADED]


@pytest.mark.parametrize("patch", [14, 16])
def test_patches_of_public_sizes_fit_every_tube(patch: int) -> None:
    model = new_model()
    found = read_vision(timm_vit(SIZES, patch=patch, places=4), {}, HALF, model)
    assert found.problems == []
    assert {found.sources[f"video_tubes.projections.{i}.weight"][0] for i in (0, 1)} == {INTERPOLATED}


def test_what_has_no_place_here_is_listed_with_its_reason() -> None:
    found = read_vision(timm_vit(SIZES, patch=8, places=4), {}, HALF, new_model())
    assert set(found.unused) == {"cls_token", "pos_embed", "head.weight", "head.bias"}
    assert "fixed here" in found.unused["pos_embed"][0]


def test_queries_without_a_bias_have_a_bias_of_zero() -> None:
    file = {k: v for k, v in timm_vit(SIZES, patch=8, places=4).items() if not k.endswith("qkv.bias")}
    found = read_vision(file, {}, HALF, new_model())
    assert found.problems == []
    assert not found.tensors["vit.blocks.0.qkv.bias"].any()


def test_every_shape_that_does_not_fit_is_named_with_both_shapes() -> None:
    file = timm_vit(SIZES, patch=8, places=4)
    file["blocks.1.norm2.bias"] = torch.zeros(23)
    file["blocks.0.attn.proj.weight"] = torch.zeros(24, 12)
    file["blocks.0.surprise"] = torch.zeros(3)
    del file["norm.weight"]
    problems = read_vision(file, {}, HALF, new_model()).problems
    assert sorted(problems) == [
        "blocks.0.attn.proj.weight: [24, 12] in the file, expected [24, 24]",
        "blocks.0.surprise: [3] in the file, this layout has no such key",
        "blocks.1.norm2.bias: [23] in the file, expected [24]",
        "norm.weight: not in the file, expected [24]",
    ]


def test_another_size_is_one_reason_and_names_the_size_to_set() -> None:
    wide = dataclasses.replace(SIZES, layers=12, width=768, hidden=3072, heads=12, head=64)
    shapes = timm_vit(dataclasses.replace(wide, layers=1), patch=4, places=1)
    for i in range(1, 12):
        shapes |= {k.replace("blocks.0.", f"blocks.{i}."): v for k, v in shapes.items() if k.startswith("blocks.0.")}
    problems = read_vision(shapes, {}, HALF, new_model()).problems
    assert problems[0] == "layers of the ViT: 12 in the file, expected 2: set model.vit to B"
    assert len(problems) == 3


def test_heads_of_another_width_are_refused_though_all_shapes_fit() -> None:
    problems = read_vision(timm_vit(SIZES, 8, 4), {"num_attention_heads": 4}, HALF, new_model()).problems
    assert problems == ["heads of the ViT: 4 in the file, expected 2"]


def test_another_layout_is_refused_with_what_is_known() -> None:
    (problem,) = read_vision({"stem.conv.weight": torch.zeros(1)}, {}, HALF, new_model()).problems
    assert "patch_embed.proj.weight (timm)" in problem and "stem.conv.weight" in problem
