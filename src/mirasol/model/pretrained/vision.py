"""ViT checkpoints in the key layouts of timm and of Hugging Face: blocks, final normalisation, patches.

The class token, registers and heads have no counterpart here and are dropped. Learned positions are one vector per
patch of one picture size; ours are fixed for any (docs/decisions/0022): their mean goes into the bias of the patches,
and the residual stream is scaled so that our positions weigh as much, relative to the pixels, as theirs did.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mirasol.model.config import Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.resize import resample
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, TensorMap
from mirasol.model.sizes.presets import VITS

TIMM_EPS = 1e-6  # timm's ViTs; Hugging Face says its own in config.json


@dataclass(frozen=True)
class Layout:
    """The keys of a ViT checkpoint, without .weight and .bias."""

    name: str
    patch: str
    positions: str
    block: str  # {} stands for its number
    norm: str
    qkv: tuple[str, ...]  # one key for all three, or one each
    out: str
    mlp_norm: str
    up: str
    down: str
    final: str
    scales: tuple[str, str] | None  # LayerScale behind attention and MLP
    dropped: tuple[tuple[str, str], ...]  # pattern of keys without a counterpart here, and why


LAYOUTS = (
    Layout(
        "timm",
        patch="patch_embed.proj",
        positions="pos_embed",
        block="blocks.{}.",
        norm="norm1",
        qkv=("attn.qkv",),
        out="attn.proj",
        mlp_norm="norm2",
        up="mlp.fc1",
        down="mlp.fc2",
        final="norm",
        scales=("ls1.gamma", "ls2.gamma"),
        dropped=(
            (r"cls_token|reg_token|mask_token", "no class, register or mask token here"),
            (r"head\.\w+|head_dist\.\w+|pre_logits\.fc\.\w+", "a classifier"),
        ),
    ),
    Layout(
        "Hugging Face",
        patch="embeddings.patch_embeddings.projection",
        positions="embeddings.position_embeddings",
        block="encoder.layer.{}.",
        norm="layernorm_before",
        qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        out="attention.output.dense",
        mlp_norm="layernorm_after",
        up="intermediate.dense",
        down="output.dense",
        final="layernorm",
        scales=None,
        dropped=(
            (r"embeddings\.(cls_token|mask_token)", "no class or mask token here"),
            (r"pooler\.dense\.\w+|classifier\.\w+", "a classifier"),
        ),
    ),
)


@dataclass(frozen=True)
class Pixels:
    """The normalisation of the file's model: (value / 255 - mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    said_by: str


def read_vision(tensors: dict[str, Tensor], settings: dict[str, object], pixels: Pixels, model: Mirasol) -> TensorMap:
    """Map a ViT checkpoint to ``model``: all of its ``vit``, and its patches to every tube.

    Args:
        tensors: the file.
        settings: its Hugging Face ``config.json``, ``{}`` without one.
        pixels: its normalisation, which is folded into the patches.
        model: decides the shapes; its tensors do not change.
    """
    tensors = {key.removeprefix("vit."): tensor for key, tensor in tensors.items()}
    taken = TensorMap.of(model, tensors)
    layout = next((each for each in LAYOUTS if f"{each.patch}.weight" in tensors), None)
    if layout is None:
        expected = " or ".join(f"{each.patch}.weight ({each.name})" for each in LAYOUTS)
        taken.problems.append(f"no ViT in a known layout: expected {expected}; its keys begin {sorted(tensors)[:3]}")
        return taken
    for key in tensors:
        why = next((why for pattern, why in layout.dropped if re.fullmatch(pattern, key)), None)
        if why is not None:
            taken.drop(key, why)
    _compare_sizes(layout, tensors, settings, model.config.vit, taken)
    if taken.problems:  # every tensor would be wrong for the same reason
        return taken
    ours = float(model.video_tubes.positions.square().mean().sqrt())
    mean, scale = _positions(layout, taken, ours, model.config.vit.width)
    _patches(layout, taken, pixels, mean, scale, model)
    for layer in range(model.config.vit.layers):
        _block(layout, taken, layer, scale, model.config.vit)
    _norm(taken, layout.final, "vit.norm", model.config.vit.width, f"{layout.name} ViT")
    taken.refuse_the_rest()
    return taken


def _compare_sizes(
    layout: Layout, tensors: dict[str, Tensor], settings: dict[str, object], ours: Sizes, taken: TensorMap
) -> None:
    """One problem for each size that differs, in place of one for each tensor."""
    pattern = re.compile(re.escape(layout.block).replace(r"\{\}", r"(\d+)") + ".*")
    layers = len({match[1] for key in tensors if (match := pattern.fullmatch(key))})
    first = layout.block.format(0)
    up, patch = tensors.get(f"{first}{layout.up}.weight"), tensors[f"{layout.patch}.weight"]
    if patch.dim() != 4 or patch.shape[1] != 3:
        taken.problems.append(f"{layout.patch}.weight: {list(patch.shape)}, expected [{ours.width}, 3, side, side]")
        return
    if up is not None and up.dim() != 2:
        taken.problems.append(f"{first}{layout.up}.weight: {list(up.shape)}, expected {[ours.hidden, ours.width]}")
        return
    hidden, width = (0 if up is None else up.shape[0]), patch.shape[0]
    name = next((n for n, s in VITS.items() if (s.layers, s.width, s.hidden) == (layers, width, hidden)), None)
    advice = f": set model.vit to {name}" if name else ""
    for size, theirs, here in (("layers", layers, ours.layers), ("width", width, ours.width)):
        if theirs != here:
            taken.problems.append(f"{size} of the ViT: {theirs} in the file, expected {here}{advice}")
    if up is not None and hidden != ours.hidden:
        taken.problems.append(
            f"{first}{layout.up}.weight: {list(up.shape)}, expected {[ours.hidden, ours.width]}{advice}"
        )
    said = settings.get("num_attention_heads")
    heads = int(said) if isinstance(said, int) else VITS[name].heads if name else None
    if heads is None:
        taken.notes.append(f"the file does not say its heads: taken to be {ours.heads}, as here")
    elif width == ours.width and heads != ours.heads:
        taken.problems.append(f"heads of the ViT: {heads} in the file, expected {ours.heads}{advice}")
    elif width == ours.width and heads * ours.head != width:
        taken.problems.append(f"heads of the ViT: {width // heads} wide in the file, expected {ours.head}{advice}")
    if settings.get("hidden_act", "gelu") != "gelu":
        taken.problems.append(f"hidden_act {settings['hidden_act']!r} in its config.json, expected 'gelu'")
    eps = settings.get("layer_norm_eps", TIMM_EPS)
    if eps != ours.eps:
        taken.notes.append(f"LayerNorm epsilon {eps} there, {ours.eps} here: not in the weights, next to no difference")


def _positions(layout: Layout, taken: TensorMap, ours: float, width: int) -> tuple[Tensor, float]:
    """The mean [d] of the file's positions, and the factor on the residual stream."""
    table = taken.left.get(layout.positions)
    if table is None:
        taken.notes.append("the file has no table of positions")
        return torch.zeros(width), 1.0
    if table.dim() != 3 or table.shape[0] != 1 or table.shape[2] != width or table.shape[1] < 1:
        taken.problems.append(f"{layout.positions}: {list(table.shape)} in the file, expected [1, places, {width}]")
        del taken.left[layout.positions]
        return torch.zeros(width), 1.0
    first = table.shape[1] - math.isqrt(table.shape[1]) ** 2  # after the class token's
    positions = table[0, first:].float()
    if first > 8:
        taken.notes.append(f"{table.shape[1]} positions are no square of patches: the first {first} count as no place")
    mean = positions.mean(dim=0)
    theirs = float((positions - mean).square().mean().sqrt())
    scale = ours / theirs if ours > 0 and theirs > 0 else 1.0
    why = f"positions are fixed here; their mean is in the bias of the patches, the stream is scaled by {scale:.4g}"
    taken.drop(layout.positions, why)
    return mean, scale


def _patches(layout: Layout, taken: TensorMap, pixels: Pixels, mean: Tensor, scale: float, model: Mirasol) -> None:
    """Every tube starts from the patch: its pixels resized, its frames an equal share each."""
    name, width = layout.patch, model.config.vit.width
    weight = taken.take(f"{name}.weight", taken.left[f"{name}.weight"].shape)
    bias = taken.take(f"{name}.bias", [width])
    if weight is None or bias is None:
        return
    # theirs: (value / 255 - mean) / std; ours is value / 255 = (x + 1) / 2 with x in -1..1
    centre, spread = (torch.tensor(values, dtype=torch.float64) for values in (pixels.mean, pixels.std))
    bias = bias + torch.einsum("dchw,c->d", weight.double(), (0.5 - centre) / spread).float()
    weight = (weight.double() * (0.5 / spread)[:, None, None]).float()
    for index, lattice in enumerate(model.video_tubes.lattices):
        same = lattice.shape == (1, *weight.shape[2:])
        sizes = "x".join(map(str, weight.shape[2:])), "x".join(map(str, lattice.shape))
        source = f"{name}, {sizes[0]} to {sizes[1]}"
        kernel = resample(weight[:, :, None], lattice.shape)
        ours = f"video_tubes.projections.{index}"
        taken.give(f"{ours}.weight", kernel.flatten(1) * scale, LOADED if same else INTERPOLATED, source)
        taken.give(f"{ours}.bias", (bias + mean) * scale, LOADED, source)


def _block(layout: Layout, taken: TensorMap, layer: int, scale: float, sizes: Sizes) -> None:
    theirs, ours = layout.block.format(layer), f"vit.blocks.{layer}"
    source, inner = f"{layout.name} ViT", sizes.heads * sizes.head
    _norm(taken, theirs + layout.norm, f"{ours}.norm", sizes.width, source)
    _norm(taken, theirs + layout.mlp_norm, f"{ours}.mlp.norm", sizes.width, source)
    rows = 3 * inner // len(layout.qkv)
    parts = [_linear(taken, theirs + key, rows, sizes.width) for key in layout.qkv]
    if all(part is not None for part in parts):
        weights, biases = zip(*(part for part in parts if part is not None), strict=True)
        taken.give(f"{ours}.qkv.weight", torch.cat(weights), LOADED, source)
        taken.give(f"{ours}.qkv.bias", torch.cat(biases), LOADED, source)
    if (up := _linear(taken, theirs + layout.up, sizes.hidden, sizes.width)) is not None:
        taken.give(f"{ours}.mlp.up.weight", up[0], LOADED, source)
        taken.give(f"{ours}.mlp.up.bias", up[1], LOADED, source)
    back = ((layout.out, f"{ours}.out", inner), (layout.down, f"{ours}.mlp.down", sizes.hidden))
    for index, (key, name, columns) in enumerate(back):  # into the residual stream
        if (pair := _linear(taken, theirs + key, sizes.width, columns)) is not None:
            gain = torch.full((sizes.width,), scale)
            gamma = theirs + layout.scales[index] if layout.scales else ""
            if gamma in taken.left and (learned := taken.take(gamma, [sizes.width])) is not None:
                gain = gain * learned
            taken.give(f"{name}.weight", pair[0] * gain[:, None], LOADED, source)
            taken.give(f"{name}.bias", pair[1] * gain, LOADED, source)


def _linear(taken: TensorMap, name: str, rows: int, columns: int) -> tuple[Tensor, Tensor] | None:
    """Weight and bias; some checkpoints lack the bias of queries, keys and values: it is zero."""
    weight = taken.take(f"{name}.weight", [rows, columns])
    may_lack = name.endswith(("qkv", "query", "key", "value"))
    if may_lack and f"{name}.bias" not in taken.left:
        bias: Tensor | None = torch.zeros(rows)
    else:
        bias = taken.take(f"{name}.bias", [rows])
    return None if weight is None or bias is None else (weight, bias)


def _norm(taken: TensorMap, theirs: str, ours: str, width: int, source: str) -> None:
    for end in ("weight", "bias"):
        taken.copy(f"{theirs}.{end}", f"{ours}.{end}", [width], source)
