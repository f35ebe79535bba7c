"""ViT checkpoints in the key layouts of timm and of Hugging Face: blocks, final normalisation, patches.

What our ViT has no place for: the class token, registers and heads are dropped. Learned positions are one vector per
place of one picture size; ours are fixed for any (docs/decisions/0022): their mean goes into the bias of the patches,
and the residual stream is scaled so that our positions weigh beside the pixels what theirs did.
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
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, Found, Keys
from mirasol.model.sizes.presets import VITS

TIMM_EPS = 1e-6  # timm's ViTs; Hugging Face says its own in config.json


@dataclass(frozen=True)
class Layout:
    """Where a ViT checkpoint keeps what; names without .weight and .bias."""

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
    dropped: tuple[tuple[str, str], ...]  # pattern of keys that have no place here, and why


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
    """How the file's model was fed: (value / 255 - mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    said_by: str


def read_vision(tensors: dict[str, Tensor], settings: dict[str, object], pixels: Pixels, model: Mirasol) -> Found:
    """What a ViT checkpoint gives to ``model``: all of its ``vit``, and its patches for every tube.

    Args:
        tensors: the file.
        settings: Hugging Face's ``config.json`` beside it, ``{}`` without one.
        pixels: its normalisation, which is folded into the patches.
        model: decides the shapes; its tensors are not touched.
    """
    found = Found.of(model)
    tensors = {key.removeprefix("vit."): tensor for key, tensor in tensors.items()}
    layout = next((each for each in LAYOUTS if f"{each.patch}.weight" in tensors), None)
    if layout is None:
        expected = " or ".join(f"{each.patch}.weight ({each.name})" for each in LAYOUTS)
        found.problems.append(f"no ViT in a known layout: expected {expected}; its keys begin {sorted(tensors)[:3]}")
        return found
    keys = Keys(tensors, found)
    for key in tensors:
        why = next((why for pattern, why in layout.dropped if re.fullmatch(pattern, key)), None)
        if why is not None:
            found.drop(key, keys.left.pop(key), why)
    _compare_sizes(layout, tensors, settings, model.config.vit, found)
    if found.problems:  # every tensor would be wrong for the same reason
        return found
    ours = float(model.video_tubes.positions.square().mean().sqrt())
    mean, scale = _positions(layout, keys, ours, model.config.vit.width, found)
    _patches(layout, keys, pixels, mean, scale, model, found)
    for layer in range(model.config.vit.layers):
        _block(layout, keys, layer, scale, model.config.vit, found)
    _norm(keys, layout.final, "vit.norm", model.config.vit.width, f"{layout.name} ViT", found)
    keys.refuse_the_rest()
    return found


def _compare_sizes(
    layout: Layout, tensors: dict[str, Tensor], settings: dict[str, object], ours: Sizes, found: Found
) -> None:
    """One problem for each size that differs, in place of one for each tensor."""
    pattern = re.compile(re.escape(layout.block).replace(r"\{\}", r"(\d+)") + ".*")
    layers = len({match[1] for key in tensors if (match := pattern.fullmatch(key))})
    first = layout.block.format(0)
    up, patch = tensors.get(f"{first}{layout.up}.weight"), tensors[f"{layout.patch}.weight"]
    if patch.dim() != 4 or patch.shape[1] != 3:
        found.problems.append(f"{layout.patch}.weight: {list(patch.shape)}, expected [{ours.width}, 3, side, side]")
        return
    if up is not None and up.dim() != 2:
        found.problems.append(f"{first}{layout.up}.weight: {list(up.shape)}, expected {[ours.hidden, ours.width]}")
        return
    hidden, width = (0 if up is None else up.shape[0]), patch.shape[0]
    name = next((n for n, s in VITS.items() if (s.layers, s.width, s.hidden) == (layers, width, hidden)), None)
    mend = f": set model.vit to {name}" if name else ""
    for what, theirs, here in (("layers", layers, ours.layers), ("width", width, ours.width)):
        if theirs != here:
            found.problems.append(f"{what} of the ViT: {theirs} in the file, expected {here}{mend}")
    if up is not None and hidden != ours.hidden:
        found.problems.append(
            f"{first}{layout.up}.weight: {list(up.shape)}, expected {[ours.hidden, ours.width]}{mend}"
        )
    said = settings.get("num_attention_heads")
    heads = int(said) if isinstance(said, int) else VITS[name].heads if name else None
    if heads is None:
        found.notes.append(f"the file does not say its heads: taken to be {ours.heads}, as here")
    elif width == ours.width and heads != ours.heads:
        found.problems.append(f"heads of the ViT: {heads} in the file, expected {ours.heads}{mend}")
    elif width == ours.width and heads * ours.head != width:
        found.problems.append(f"heads of the ViT: {width // heads} wide in the file, expected {ours.head}{mend}")
    if settings.get("hidden_act", "gelu") != "gelu":
        found.problems.append(f"hidden_act {settings['hidden_act']!r} in its config.json, expected 'gelu'")
    eps = settings.get("layer_norm_eps", TIMM_EPS)
    if eps != ours.eps:
        found.notes.append(f"LayerNorm epsilon {eps} there, {ours.eps} here: not in the weights, next to no difference")


def _positions(layout: Layout, keys: Keys, ours: float, width: int, found: Found) -> tuple[Tensor, float]:
    """The mean [d] of the file's positions, and by what the residual stream is scaled."""
    table = keys.left.pop(layout.positions, None)
    if table is None:
        found.notes.append("the file has no table of positions")
        return torch.zeros(width), 1.0
    if table.dim() != 3 or table.shape[0] != 1 or table.shape[2] != width or table.shape[1] < 1:
        found.problems.append(f"{layout.positions}: {list(table.shape)} in the file, expected [1, places, {width}]")
        return torch.zeros(width), 1.0
    first = table.shape[1] - math.isqrt(table.shape[1]) ** 2  # behind the class token's
    places = table[0, first:].float()
    if first > 8:
        found.notes.append(f"{table.shape[1]} positions are no square of patches: the first {first} count as no place")
    mean = places.mean(dim=0)
    theirs = float((places - mean).square().mean().sqrt())
    scale = ours / theirs if ours > 0 and theirs > 0 else 1.0
    why = f"positions are fixed here; their mean is in the bias of the patches, the stream is scaled by {scale:.4g}"
    found.drop(layout.positions, table, why)
    return mean, scale


def _patches(
    layout: Layout, keys: Keys, pixels: Pixels, mean: Tensor, scale: float, model: Mirasol, found: Found
) -> None:
    """Every tube starts from the patch: its pixels resized, its frames an equal share each."""
    name, width = layout.patch, model.config.vit.width
    weight = keys.take(f"{name}.weight", keys.tensors[f"{name}.weight"].shape)
    bias = keys.take(f"{name}.bias", [width])
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
        found.give(f"{ours}.weight", kernel.flatten(1) * scale, LOADED if same else INTERPOLATED, source)
        found.give(f"{ours}.bias", (bias + mean) * scale, LOADED, source)


def _block(layout: Layout, keys: Keys, layer: int, scale: float, sizes: Sizes, found: Found) -> None:
    theirs, ours = layout.block.format(layer), f"vit.blocks.{layer}"
    source, inner = f"{layout.name} ViT", sizes.heads * sizes.head
    _norm(keys, theirs + layout.norm, f"{ours}.norm", sizes.width, source, found)
    _norm(keys, theirs + layout.mlp_norm, f"{ours}.mlp.norm", sizes.width, source, found)
    rows = 3 * inner // len(layout.qkv)
    parts = [_linear(keys, theirs + key, rows, sizes.width) for key in layout.qkv]
    if all(part is not None for part in parts):
        weights, biases = zip(*(part for part in parts if part is not None), strict=True)
        found.give(f"{ours}.qkv.weight", torch.cat(weights), LOADED, source)
        found.give(f"{ours}.qkv.bias", torch.cat(biases), LOADED, source)
    if (up := _linear(keys, theirs + layout.up, sizes.hidden, sizes.width)) is not None:
        found.give(f"{ours}.mlp.up.weight", up[0], LOADED, source)
        found.give(f"{ours}.mlp.up.bias", up[1], LOADED, source)
    back = ((layout.out, f"{ours}.out", inner), (layout.down, f"{ours}.mlp.down", sizes.hidden))
    for index, (key, name, columns) in enumerate(back):  # into the residual stream
        if (pair := _linear(keys, theirs + key, sizes.width, columns)) is not None:
            gain = torch.full((sizes.width,), scale)
            gamma = theirs + layout.scales[index] if layout.scales else ""
            if gamma in keys.left and (learned := keys.take(gamma, [sizes.width])) is not None:
                gain = gain * learned
            found.give(f"{name}.weight", pair[0] * gain[:, None], LOADED, source)
            found.give(f"{name}.bias", pair[1] * gain, LOADED, source)


def _linear(keys: Keys, name: str, rows: int, columns: int) -> tuple[Tensor, Tensor] | None:
    """Weight and bias; queries, keys and values of some checkpoints have no bias, which is a bias of zero."""
    weight = keys.take(f"{name}.weight", [rows, columns])
    may_lack = name.endswith(("qkv", "query", "key", "value"))
    if may_lack and f"{name}.bias" not in keys.left:
        bias: Tensor | None = torch.zeros(rows)
    else:
        bias = keys.take(f"{name}.bias", [rows])
    return None if weight is None or bias is None else (weight, bias)


def _norm(keys: Keys, theirs: str, ours: str, width: int, source: str, found: Found) -> None:
    for end in ("weight", "bias"):
        if (tensor := keys.take(f"{theirs}.{end}", [width])) is not None:
            found.give(f"{ours}.{end}", tensor, LOADED, source)
