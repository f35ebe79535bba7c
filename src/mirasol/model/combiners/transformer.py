"""The causal transformer combiner (P 3.2, figure 4 left)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.combiners.pooled import PooledStart
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class TransformerCombiner(nn.Module):
    """All features of a chunk and of the chunks before it go in; the last m of the chunk's sequence come out.

    With ``queries: pooled``, m features are added to the chunk's sequence for this purpose.
    """

    def __init__(self, config: ModelConfig, video_places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.combined = config.combined
        self.features = video_places.shape[0] + audio_tokens
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        self.transformer = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout)
        self.pooled = PooledStart(config, video_places, audio_tokens) if config.queries == "pooled" else None

    def _tokens(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """The chunk's sequence [..., n', d] from its features [..., n, d]."""
        u = self.project(u)
        if valid is not None:
            u = torch.where(valid[..., None], u, 0.0)  # missing ones are masked as keys, but may be among the last m
        return u if self.pooled is None else torch.cat([u, self.pooled(u)], dim=-2)

    def _visible(self, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens of the sequence the own chunk and later chunks see, bool [..., n'] each.

        The m tokens that leave see at least themselves, so that a chunk without anything has a finite x; later
        chunks look at no chunk that holds nothing.
        """
        leaving = torch.ones_like(valid[..., : self.combined])
        kept = valid[..., : self.features - self.combined] if self.pooled is None else valid
        own = torch.cat([kept, leaving], dim=-1)
        return own, own & valid.any(dim=-1, keepdim=True)

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        own, later = (None, None) if valid is None else self._visible(valid)
        return self.transformer(self._tokens(u, valid), self.combined, own, later)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        tokens = self.features + (0 if self.pooled is None else self.combined)
        return self.transformer.init_state(batch, tokens, device, dtype)

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        return self.transformer.step(self._tokens(u, valid), self.combined, state, *self._visible(valid))
