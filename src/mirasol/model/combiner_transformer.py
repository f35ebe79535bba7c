"""The causal transformer combiner (P 3.2, figure 4 left)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class TransformerCombiner(nn.Module):
    """All features of a chunk and of the chunks before it go in; the last m of the chunk's sequence come out.

    With ``queries: pooled``, m features are added to the chunk's sequence for this purpose. They start from the
    means of m horizontal bands of the video features plus the mean of the audio features: not in the paper, whose
    backbones are pretrained; trained from scratch, it decides whether the model learns to bind what it sees to
    what it hears.
    """

    pool: Tensor

    def __init__(self, config: ModelConfig, video_rows: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.combined = config.combined
        self.features = video_rows.shape[0] + audio_tokens
        self.pooled = config.queries == "pooled"
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        self.transformer = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout)
        if self.pooled:
            self.queries = nn.Parameter(torch.empty(config.combined, config.combiner_sizes.width))
            self.register_buffer("pool", pooling(video_rows, audio_tokens, config.combined), persistent=False)

    def start(self) -> None:
        """Start the queries."""
        if self.pooled:
            nn.init.trunc_normal_(self.queries, std=0.5)

    def _tokens(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """The chunk's sequence [..., n', d] from its features [..., n, d]."""
        u = self.project(u)
        if valid is not None:
            u = torch.where(valid[..., None], u, 0.0)  # missing ones are masked as keys, but may be among the last m
        if not self.pooled:
            return u
        start = torch.einsum("mn,...nd->...md", self.pool.to(u.dtype), u) + self.queries
        return torch.cat([u, start], dim=-2)

    def _visible(self, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens of the sequence the own chunk and later chunks see, bool [..., n'] each.

        The m tokens that leave see at least themselves, so that a chunk without anything has a finite x; later
        chunks look at no chunk that holds nothing.
        """
        leaving = torch.ones_like(valid[..., : self.combined])
        kept = valid if self.pooled else valid[..., : self.features - self.combined]
        own = torch.cat([kept, leaving], dim=-1)
        return own, own & valid.any(dim=-1, keepdim=True)

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        own, later = (None, None) if valid is None else self._visible(valid)
        return self.transformer(self._tokens(u, valid), self.combined, own, later)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        tokens = self.features + (self.combined if self.pooled else 0)
        return self.transformer.init_state(batch, tokens, device, dtype)

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        return self.transformer.step(self._tokens(u, valid), self.combined, state, *self._visible(valid))


def pooling(video_rows: Tensor, audio_tokens: int, combined: int) -> Tensor:
    """Weights [m, n]: the mean of one of m horizontal bands of video features, plus the mean of audio features.

    A video token counts for the bands whose centre is less than one band's height away, the nearer the more; a
    band without tokens takes the mean of all.
    """
    centres = (torch.arange(combined, dtype=torch.float32) + 0.5) / combined
    near = (1.0 - (video_rows[None, :] - centres[:, None]).abs() * combined).clamp(min=0.0)
    near = torch.where(near.sum(dim=1, keepdim=True) > 0, near, torch.ones_like(near))
    audio = torch.full((combined, audio_tokens), 1.0 / audio_tokens)
    return torch.cat([near / near.sum(dim=1, keepdim=True), audio], dim=1)
