"""Where combined features may start when nothing is pretrained (`queries: pooled`): not in the paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig


class PooledStart(nn.Module):
    """m learned vectors plus pooled features of the chunk: cells of its frames, and all of its audio.

    The paper's backbones are pretrained. From scratch, this short way from the encoders to x decides whether
    sounds are learnt at all, and whether what is seen gets bound to what is heard.
    """

    pool: Tensor

    def __init__(self, config: ModelConfig, places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.combined, config.combiner_sizes.width))
        self.register_buffer("pool", pooling(places, audio_tokens, config.combined), persistent=False)

    def start(self) -> None:
        """Tell the m features apart."""
        nn.init.normal_(self.queries, std=0.5)

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n, d], zero where features are missing -> [..., m, d]."""
        return torch.einsum("mn,...nd->...md", self.pool, u) + self.queries


def pooling(places: Tensor, audio_tokens: int, combined: int) -> Tensor:
    """Weights [m, n]: the mean of one of m cells of the frame, plus the mean of all audio features.

    The cells form the grid of m that is nearest to a square: 3 x 3 for 9, 4 x 8 for 32. A video token at ``places``
    [f, 2] (row, column) counts for the cells whose centre is less than a cell away, the nearer the more; a cell
    without tokens takes the mean of all.
    """
    rows = max(n for n in range(1, math.isqrt(combined) + 1) if combined % n == 0)
    columns = combined // rows
    cells = torch.cartesian_prod((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns)
    away = (places[None] - cells[:, None]).abs() * torch.tensor([rows, columns])  # [m, f, 2], in cells
    near = (1.0 - away).clamp(min=0.0).prod(dim=-1)
    near = torch.where(near.sum(dim=1, keepdim=True) > 0, near, torch.ones_like(near))
    audio = torch.full((combined, audio_tokens), 1.0 / audio_tokens)
    return torch.cat([near / near.sum(dim=1, keepdim=True), audio], dim=1)
