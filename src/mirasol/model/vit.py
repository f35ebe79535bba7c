"""The encoder that video and audio share (P 3.1): a Vision Transformer with pre-norm blocks."""

from __future__ import annotations

from torch import Tensor, nn

from mirasol.model.config import Sizes
from mirasol.model.layers import Block


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
