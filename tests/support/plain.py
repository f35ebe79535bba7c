"""Slow reference versions of parts of the model: one head and one token at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """One token [in] -> [out]."""
    return weight @ x + bias


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation of one token."""
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + layer.eps) * layer.weight + layer.bias


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's share below it."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def turned(x: Tensor, chunk: int, base: float = 100.0) -> Tensor:
    """One head's query or key [head] of a token in this chunk, turned by its rotary angles."""
    half = len(x) // 2
    out = x.clone()
    for i in range(half):
        angle = chunk * base ** (-i / half)
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def block(
    layer: nn.Module, reader: Tensor, seen: list[Tensor], chunk: int | None = None, chunks: list[int] | None = None
) -> Tensor:
    """A pre-norm block for one token [d] that looks at the tokens ``seen``: attention, then the MLP.

    ``chunk`` and ``chunks`` say where they are, when the block turns queries and keys by the index of their chunk.
    """
    inner = layer.out.in_features
    size = inner // layer.heads
    weights, biases = layer.qkv.weight.split(inner), layer.qkv.bias.split(inner)
    q = linear(weights[0], biases[0], norm(layer.norm, reader))
    keys = [linear(weights[1], biases[1], norm(layer.norm, token)) for token in seen]
    values = [linear(weights[2], biases[2], norm(layer.norm, token)) for token in seen]
    heads = []
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        mine, theirs = q[part], [key[part] for key in keys]
        if chunk is not None and chunks is not None:
            mine = turned(mine, chunk)
            theirs = [turned(key, at) for key, at in zip(theirs, chunks, strict=True)]
        scores = torch.stack([(mine * key).sum() / math.sqrt(size) for key in theirs])
        shares = torch.exp(scores - scores.max())
        shares = shares / shares.sum()
        heads.append(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
    x = reader + linear(layer.out.weight, layer.out.bias, torch.cat(heads))
    hidden = gelu(linear(layer.mlp.up.weight, layer.mlp.up.bias, norm(layer.mlp.norm, x)))
    return x + linear(layer.mlp.down.weight, layer.mlp.down.bias, hidden)
