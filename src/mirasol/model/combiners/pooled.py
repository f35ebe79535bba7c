"""Where the m features start that are added to a chunk: learned, or pooled from the chunk (`queries: pooled`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig


class PooledStart(nn.Module):
    """m learned vectors plus pooled features of the chunk: cells of its frames, and all of its audio. Not in the paper.

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


class LearnedStart(nn.Module):
    """m learned vectors, the same for every chunk (P 4.1: the CLS and Perceiver combiners)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.combined, config.combiner_sizes.width))

    def start(self) -> None:
        """Tell the m features apart."""
        nn.init.normal_(self.queries, std=0.5)

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n, d] -> [..., m, d]."""
        return self.queries.expand(*u.shape[:-2], *self.queries.shape)


def append_start(u: Tensor, valid: Tensor | None, start: nn.Module) -> Tensor:
    """A chunk's sequence [..., n+m, d]: its features [..., n, d], zero where missing, then the m added ones."""
    if valid is not None:
        u = torch.where(valid[..., None], u, 0.0)
    return torch.cat([u, start(u)], dim=-2)


def appended_visible(valid: Tensor, combined: int) -> tuple[Tensor, Tensor]:
    """Which features of that sequence the own chunk and later chunks see, bool [..., n+m] each.

    The m added ones always see themselves, so that a chunk without anything has a finite x; later chunks look at
    no chunk that holds nothing.
    """
    own = torch.cat([valid, torch.ones_like(valid[..., :1]).expand(*valid.shape[:-1], combined)], dim=-1)
    return own, own & valid.any(dim=-1, keepdim=True)


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
