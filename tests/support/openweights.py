"""Small checkpoints in public key layouts, and the models they belong to, written plainly."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mirasol.model.config import Sizes

Tensors = dict[str, Tensor]


def timm_vit(sizes: Sizes, patch: int, places: int, seed: int = 0) -> Tensors:
    """A ViT with a class token in timm's keys."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, std: float = 0.3) -> Tensor:
        return torch.randn(*shape, generator=g) * std

    d, hidden = sizes.width, sizes.hidden
    tensors = {
        "cls_token": draw(1, 1, d),
        "pos_embed": draw(1, 1 + places, d) + 0.5,
        "patch_embed.proj.weight": draw(d, 3, patch, patch, std=0.1),
        "patch_embed.proj.bias": draw(d),
        "norm.weight": 1 + draw(d),
        "norm.bias": draw(d),
        "head.weight": draw(7, d),
        "head.bias": draw(7),
    }
    for i in range(sizes.layers):
        block = {
            "norm1.weight": 1 + draw(d),
            "norm1.bias": draw(d),
            "attn.qkv.weight": draw(3 * d, d),
            "attn.qkv.bias": draw(3 * d),
            "attn.proj.weight": draw(d, d),
            "attn.proj.bias": draw(d),
            "norm2.weight": 1 + draw(d),
            "norm2.bias": draw(d),
            "mlp.fc1.weight": draw(hidden, d),
            "mlp.fc1.bias": draw(hidden),
            "mlp.fc2.weight": draw(d, hidden),
            "mlp.fc2.bias": draw(d),
        }
        tensors |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return tensors


def to_hugging_face(timm: Tensors) -> Tensors:
    """The same ViT in the keys of Hugging Face's ViTForImageClassification."""
    plain = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    inside = {
        "norm1": "layernorm_before",
        "attn.proj": "attention.output.dense",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    tensors = {}
    for key, tensor in timm.items():
        stem, _, end = key.rpartition(".")
        if key in plain:
            tensors[plain[key]] = tensor
        elif stem in plain:
            tensors[f"{plain[stem]}.{end}"] = tensor
        else:
            _, number, rest = stem.split(".", 2)
            block = f"vit.encoder.layer.{number}."
            if rest == "attn.qkv":
                for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    tensors[f"{block}attention.attention.{name}.{end}"] = part
            else:
                tensors[f"{block}{inside[rest]}.{end}"] = tensor
    return tensors


def norm(x: Tensor, weights: Tensors, name: str, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: Tensors, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def vit_blocks(x: Tensor, weights: Tensors, sizes: Sizes) -> Tensor:
    """Tokens [n, d] through the blocks and the final normalisation of :func:`timm_vit`."""
    n = len(x)
    for i in range(sizes.layers):
        at = f"blocks.{i}."
        qkv = linear(norm(x, weights, f"{at}norm1", sizes.eps), weights, f"{at}attn.qkv")
        q, k, v = qkv.reshape(n, 3, sizes.heads, sizes.head).permute(1, 2, 0, 3)  # [heads, n, head]
        scores = q @ k.transpose(1, 2) / math.sqrt(sizes.head)
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)
        x = x + linear(mixed, weights, f"{at}attn.proj")
        hidden = F.gelu(linear(norm(x, weights, f"{at}norm2", sizes.eps), weights, f"{at}mlp.fc1"))
        x = x + linear(hidden, weights, f"{at}mlp.fc2")
    return norm(x, weights, "norm", sizes.eps)


def gpt_neox(sizes: Sizes, vocabulary: int, seed: int = 0) -> Tensors:
    """A decoder in the keys of Hugging Face's GPTNeoXForCausalLM."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g) * 0.3

    d, hidden = sizes.width, sizes.hidden
    tensors = {
        "gpt_neox.embed_in.weight": draw(vocabulary, d),
        "gpt_neox.final_layer_norm.weight": 1 + draw(d),
        "gpt_neox.final_layer_norm.bias": draw(d),
    }
    tensors["embed_out.weight"] = tensors["gpt_neox.embed_in.weight"].clone()
    for i in range(sizes.layers):
        block = {
            "attention.rotary_emb.inv_freq": torch.zeros(sizes.head // 2),
            **{f"{name}.weight": 1 + draw(d) for name in ("input_layernorm", "post_attention_layernorm")},
            **{f"{name}.bias": draw(d) for name in ("input_layernorm", "post_attention_layernorm")},
        }
        for name, (rows, columns) in {
            "attention.query_key_value": (3 * d, d),
            "attention.dense": (d, d),
            "mlp.dense_h_to_4h": (hidden, d),
            "mlp.dense_4h_to_h": (d, hidden),
        }.items():
            block |= {f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(rows)}
        tensors |= {f"gpt_neox.layers.{i}.{name}": tensor for name, tensor in block.items()}
    return tensors


def gpt_neox_config(sizes: Sizes, vocabulary: int) -> dict[str, object]:
    """``config.json`` of :func:`gpt_neox`."""
    return {
        "model_type": "gpt_neox",
        "use_parallel_residual": False,
        "rotary_pct": 1.0,
        "rotary_emb_base": 10000,
        "hidden_act": "gelu",
        "num_hidden_layers": sizes.layers,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.hidden,
        "num_attention_heads": sizes.heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
    }


def gpt_neox_logits(tokens: Tensor, weights: Tensors, sizes: Sizes) -> Tensor:
    """Logits [L, V] of tokens [L]."""
    x = weights["gpt_neox.embed_in.weight"][tokens]
    length, half = len(tokens), sizes.head // 2
    angles = torch.outer(torch.arange(length).to(x), 10000.0 ** (-torch.arange(half).to(x) / half))
    cos, sin = (torch.cat([wave, wave], -1) for wave in (angles.cos(), angles.sin()))

    def turn(y: Tensor) -> Tensor:
        return y * cos + torch.cat([-y[..., half:], y[..., :half]], -1) * sin

    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for i in range(sizes.layers):
        at = f"gpt_neox.layers.{i}."
        qkv = linear(norm(x, weights, f"{at}input_layernorm", 1e-5), weights, f"{at}attention.query_key_value")
        q, k, v = qkv.view(length, sizes.heads, 3 * sizes.head).transpose(0, 1).chunk(3, -1)
        scores = turn(q) @ turn(k).transpose(1, 2) / math.sqrt(sizes.head)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + linear(mixed.transpose(0, 1).reshape(length, -1), weights, f"{at}attention.dense")
        hidden = linear(norm(x, weights, f"{at}post_attention_layernorm", 1e-5), weights, f"{at}mlp.dense_h_to_4h")
        x = x + linear(F.gelu(hidden), weights, f"{at}mlp.dense_4h_to_h")
    return norm(x, weights, "gpt_neox.final_layer_norm", 1e-5) @ weights["embed_out.weight"].T
