"""The layers that every transformer of the model consists of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.attention.chunk_causal import attend
from mirasol.model.config import Sizes

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q [..., nq, heads, head], k, v [..., n, heads, head]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., heads*head] -> [..., heads, head]."""
    return x.unflatten(-1, (heads, -1))


class MLP(nn.Module):
    """The residual MLP of a pre-norm block: x + down(gelu(up(norm(x)))).

    Gated, gelu(gate(norm(x))) * up(norm(x)) takes the place of the gelu.
    """

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.up = nn.Linear(sizes.width, sizes.hidden)
        self.gate = nn.Linear(sizes.width, sizes.hidden) if sizes.gated else None
        self.down = nn.Linear(sizes.hidden, sizes.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        y = self.norm(x)
        inner = F.gelu(self.up(y)) if self.gate is None else F.gelu(self.gate(y)) * self.up(y)
        return x + self.dropout(self.down(inner))


class Block(nn.Module):
    """A pre-norm block: attention over the tokens, then an MLP."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.inner = sizes.heads * sizes.head
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.qkv = nn.Linear(sizes.width, 3 * self.inner)
        self.out = nn.Linear(self.inner, sizes.width)
        self.mlp = MLP(sizes, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, outputs: int | None = None, attention: Attention = attend) -> Tensor:
        """[..., n, d] -> [..., n, d], or of the last ``outputs`` tokens alone."""
        y = self.norm(x)
        if outputs is None or outputs == x.shape[-2]:
            q, k, v = self.qkv(y).chunk(3, dim=-1)
        else:  # the queries of the other tokens have no use
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(y[..., -outputs:, :], weight[: self.inner], bias[: self.inner])
            k, v = F.linear(y, weight[self.inner :], bias[self.inner :]).chunk(2, dim=-1)
            x = x[..., -outputs:, :]
        mixed = attention(*(split_heads(part, self.heads) for part in (q, k, v)))
        out: Tensor = self.mlp(x + self.dropout(self.out(mixed.flatten(-2))))
        return out


def projection(width_in: int, width_out: int) -> nn.Module:
    """A linear map where the widths of two parts differ; nothing where they agree."""
    return nn.Identity() if width_in == width_out else nn.Linear(width_in, width_out)


def initialise(model: nn.Module) -> None:
    """Start every linear map below ``model`` so that inputs of unit variance give outputs of unit variance.

    A fixed 0.02, usual at a width of 1024 and more, is too small at 96: sounds were learnt several times later.
    The maps back into a residual stream (``out`` and ``down`` in a list of blocks) start smaller by the square
    root of twice the depth, so that the variance of the stream does not grow with it. A module with a method ``start``
    then sets its own.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    for blocks in model.modules():
        if isinstance(blocks, nn.ModuleList):
            for name, module in blocks.named_modules():
                if name.rsplit(".", 1)[-1] in ("out", "down"):
                    module.weight.data.mul_(1 / math.sqrt(2 * len(blocks)))
    for module in model.modules():
        if callable(start := getattr(module, "start", None)):
            start()
