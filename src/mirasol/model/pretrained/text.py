"""Text decoders in Hugging Face's GPT-NeoX layout, as far as our decoder is the same function.

Ours has LayerNorm, rotary angles over whole heads, an exact GELU, attention before the MLP and an output tied to the
embedding. A checkpoint that differs in one of these is refused with all its reasons: weights are no start for
another function. Cross-attention is not in such a file; its way out starts at zero, so that the decoder first says
what the file's model says.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from mirasol.model.config import Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.positions import TOKEN_BASE
from mirasol.model.pretrained.tensor_map import LOADED, ZERO, Found, Keys
from mirasol.model.pretrained.vocabulary import Vocabulary, move_rows

SOURCE = "GPT-NeoX"
OTHERS = (
    ("wte.weight", "GPT-2 has learned positions and a GELU by tanh; our decoder has rotary angles and the exact GELU"),
    ("layers.0.mlp.gate_proj.weight", "Llama has RMSNorm and a gated MLP; our decoder has LayerNorm and a plain MLP"),
)
WAY_OUT = r"text\.blocks\.\d+\.cross_attention\.(out|mlp\.down)\.\w+"  # all that it adds to the stream
BUFFERS = r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"


def read_text(tensors: dict[str, Tensor], settings: dict[str, object], vocabulary: Vocabulary, model: Mirasol) -> Found:
    """What a GPT-NeoX checkpoint gives to ``model.text``.

    Args:
        tensors: the file.
        settings: ``config.json`` beside it: most of what must agree shows in no shape.
        vocabulary: our pieces among the file's.
        model: decides the shapes, and the rows of pieces that the file does not have.
    """
    found = Found.of(model)
    if "gpt_neox.embed_in.weight" not in tensors:
        reasons = [why for key, why in OTHERS if any(name.endswith(key) for name in tensors)]
        known = "expected gpt_neox.embed_in.weight (GPT-NeoX) or text.embedding.weight (ours)"
        found.problems += reasons or [
            f"no text decoder in a known layout: {known}; its keys begin {sorted(tensors)[:3]}"
        ]
        return found
    sizes, keys = model.config.text, Keys(tensors, found)
    _compare(settings, tensors, sizes, found)
    if found.problems:
        return found
    for key in [key for key in keys.left if re.fullmatch(BUFFERS, key)]:
        found.drop(key, keys.left.pop(key), "made anew, no weight")
    if "embed_out.weight" in keys.left:
        found.drop("embed_out.weight", keys.left.pop("embed_out.weight"), "the embedding again")
    root = math.sqrt(sizes.width)  # our embedding is multiplied by it on its way in
    embedding = keys.take("gpt_neox.embed_in.weight", [vocabulary.size, sizes.width])
    if embedding is not None:
        moved = move_rows(model.text.embedding.weight.detach(), embedding / root, vocabulary.rows)
        source = f"{SOURCE}, {len(vocabulary.rows):,} of {len(moved):,} pieces, the others random"
        found.give("text.embedding.weight", moved, LOADED, source)
    for end in ("weight", "bias"):  # on its way out it is not, so the normalisation before it is
        if (tensor := keys.take(f"gpt_neox.final_layer_norm.{end}", [sizes.width])) is not None:
            found.give(f"text.norm.{end}", tensor * root, LOADED, SOURCE)
    for layer in range(sizes.layers):
        _block(keys, layer, sizes, found)
    for name, shape in found.shapes.items():
        if re.fullmatch(WAY_OUT, name):
            found.give(name, torch.zeros(shape), ZERO, "its way out: the file's model speaks first")
    keys.refuse_the_rest()
    return found


def _compare(settings: dict[str, object], tensors: dict[str, Tensor], sizes: Sizes, found: Found) -> None:
    """All that ``config.json`` says against our decoder. Its defaults are those of Hugging Face's GPTNeoXConfig."""

    def said(*names: str, otherwise: object) -> object:
        return next((settings[name] for name in names if name in settings), otherwise)

    expected = (
        ("use_parallel_residual", said("use_parallel_residual", otherwise=True), False, "attention, then the MLP"),
        ("rotary_pct", said("rotary_pct", "partial_rotary_factor", otherwise=0.25), 1, "whole heads are rotated"),
        ("rotary_emb_base", said("rotary_emb_base", "rope_theta", otherwise=10000), TOKEN_BASE, "the base of angles"),
        ("rope_scaling", said("rope_scaling", otherwise=None), None, "angles are not scaled"),
        ("hidden_act", said("hidden_act", otherwise="gelu"), "gelu", "the exact GELU"),
        ("num_hidden_layers", said("num_hidden_layers", otherwise=44), sizes.layers, "layers of the preset's text"),
        ("hidden_size", said("hidden_size", otherwise=6144), sizes.width, "width of the preset's text"),
        ("intermediate_size", said("intermediate_size", otherwise=24576), sizes.hidden, "width of its MLP"),
        ("num_attention_heads", said("num_attention_heads", otherwise=64), sizes.heads, "its heads"),
    )
    for name, theirs, ours, meaning in expected:
        if theirs != ours:
            found.problems.append(f"{name}: {theirs!r} in its config.json, expected {ours!r} ({meaning})")
    if sizes.heads * sizes.head != sizes.width:
        found.problems.append(f"heads are width / heads wide there, {sizes.head} with {sizes.heads} heads here")
    output = tensors.get("embed_out.weight")
    if output is not None and not torch.equal(output, tensors["gpt_neox.embed_in.weight"]):
        found.problems.append("embed_out.weight: another matrix than embed_in.weight, our output is the embedding")
    eps = said("layer_norm_eps", otherwise=1e-5)
    if eps != sizes.eps:
        found.notes.append(f"LayerNorm epsilon of the text {eps} there, {sizes.eps} here: it is not in the weights")


def _block(keys: Keys, layer: int, sizes: Sizes, found: Found) -> None:
    theirs, ours = f"gpt_neox.layers.{layer}.", f"text.blocks.{layer}."
    width, inner = sizes.width, sizes.heads * sizes.head
    plain = (
        ("input_layernorm", "self_attention.norm", (width,)),
        ("attention.dense", "self_attention.out", (width, inner)),
        ("post_attention_layernorm", "mlp.norm", (width,)),
        ("mlp.dense_h_to_4h", "mlp.up", (sizes.hidden, width)),
        ("mlp.dense_4h_to_h", "mlp.down", (width, sizes.hidden)),
    )
    for their, our, shape in plain:
        for end, extent in (("weight", shape), ("bias", shape[:1])):
            if (tensor := keys.take(f"{theirs}{their}.{end}", extent)) is not None:
                found.give(f"{ours}{our}.{end}", tensor, LOADED, SOURCE)
    for end, rest in (("weight", [width]), ("bias", [])):
        fused = keys.take(f"{theirs}attention.query_key_value.{end}", [3 * inner, *rest])
        if fused is not None:  # head by head there, all queries first here
            ordered = fused.unflatten(0, (sizes.heads, 3, sizes.head)).transpose(0, 1).flatten(0, 2)
            found.give(f"{ours}self_attention.qkv.{end}", ordered, LOADED, SOURCE)
