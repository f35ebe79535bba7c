"""The encoder that video and audio share (P 3.1): a Vision Transformer with pre-norm blocks."""

from __future__ import annotations

from torch import Tensor, nn

from mirasol.model.attention.chunk_causal import attend
from mirasol.model.config import Sizes
from mirasol.model.layers import MLP, split_heads


class Block(nn.Module):
    """Self-attention over all tokens of a chunk, then an MLP; both read a normalised residual stream."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.qkv = nn.Linear(sizes.width, 3 * inner)
        self.out = nn.Linear(inner, sizes.width)
        self.mlp = MLP(sizes, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[S, n, d] -> [S, n, d]."""
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(self.norm(x)).chunk(3, dim=-1))
        x = x + self.dropout(self.out(attend(q, k, v).flatten(-2)))
        return self.mlp(x)


class ViT(nn.Module):
    """The blocks and the final normalisation. Video and audio call it separately: one never sees the other here."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(sizes, dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, n, d] -> [B, T, n, d]; each chunk by itself."""
        x = tokens.flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).unflatten(0, tokens.shape[:2])
