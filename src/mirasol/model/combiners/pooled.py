"""The start of the m features that are added to a chunk: learned, or pooled from the chunk (`queries: pooled`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mirasol.model.attention.chunk_causal import Visible
from mirasol.model.config import ModelConfig


class LearnedStart(nn.Module):
    """m learned vectors, the same for every chunk (P 4.1: the CLS and Perceiver combiners)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.combiner_sizes.width))

    def start(self) -> None:
        """Tell the m features apart."""
        nn.init.normal_(self.queries, std=0.5)

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n, d] -> [..., m, d]."""
        return self.queries.expand(*u.shape[:-2], *self.queries.shape)


class PooledStart(LearnedStart):
    """m learned vectors plus pooled features of the chunk: cells of its frames, and all of its audio. Not in the paper.

    The paper's backbones are pretrained. From scratch, this short way from the encoders to x decides whether the
    model learns sounds at all, and whether it binds pictures to sounds.
    """

    pool: Tensor

    def __init__(self, config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> None:
        super().__init__(config)
        self.register_buffer("pool", pooling(video_positions, audio_tokens, config.num_queries), persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n, d], zero where features are missing -> [..., m, d]."""
        return torch.einsum("mn,...nd->...md", self.pool, u) + self.queries


def append_start(u: Tensor, valid: Tensor | None, start: LearnedStart | None) -> Tensor:
    """A chunk's sequence: its features u [..., n, d], zero where missing, then the m added ones, if any."""
    if valid is not None:  # attention masks missing ones as keys, but pooling and the last m features read them
        u = torch.where(valid[..., None], u, 0.0)
    return u if start is None else torch.cat([u, start(u)], dim=-2)


def visible_tokens(valid: Tensor | None, outputs: int, added: bool = True) -> Visible | None:
    """Which tokens of that sequence attention sees; ``valid`` bool [..., n], ``None`` for all.

    The m output tokens, which are added or the last m features, always see themselves, so that an empty chunk has a
    finite x; later chunks do not see an empty chunk.
    """
    if valid is None:
        return None
    kept = valid if added else valid[..., :-outputs]
    own = torch.cat([kept, torch.ones_like(valid[..., :1]).expand(*valid.shape[:-1], outputs)], dim=-1)
    return Visible(own, own & valid.any(dim=-1, keepdim=True))


def pooling(positions: Tensor, audio_tokens: int, num_queries: int) -> Tensor:
    """Weights [m, n]: the mean of one of m cells of the frame, plus the mean of all audio features.

    The cells form the most nearly square grid of m: 3 x 3 for 9, 4 x 8 for 32. A video token at ``positions``
    [f, 2] (row, column) counts for the cells with a centre less than a cell away, the nearer the more; a cell
    without tokens takes the mean of all.
    """
    rows = max(n for n in range(1, math.isqrt(num_queries) + 1) if num_queries % n == 0)
    columns = num_queries // rows
    cells = torch.cartesian_prod((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns)
    away = (positions[None] - cells[:, None]).abs() * torch.tensor([rows, columns])  # [m, f, 2], in cells
    near = (1.0 - away).clamp(min=0.0).prod(dim=-1)
    near = torch.where(near.sum(dim=1, keepdim=True) > 0, near, torch.ones_like(near))
    audio = torch.full((num_queries, audio_tokens), 1.0 / audio_tokens)
    return torch.cat([near / near.sum(dim=1, keepdim=True), audio], dim=1)
