"""The CLS-token combiner (P 4.1, S figure 1): the transformer combiner with m learned features that leave."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.combiners.pooled import LearnedStart, append_start, appended_visible
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class CLSCombiner(nn.Module):
    """m learned features are appended to the sequence of each chunk; after all layers they are x.

    They are features of their chunk as any other: the chunk's features see them, later chunks do (eq. 8).
    """

    def __init__(self, config: ModelConfig, video_places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.combined = config.combined
        self.tokens = video_places.shape[0] + audio_tokens + config.combined
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        self.first = LearnedStart(config)
        self.transformer = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout)

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        own, later = (None, None) if valid is None else appended_visible(valid, self.combined)
        return self.transformer(append_start(self.project(u), valid, self.first), self.combined, own, later)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        return self.transformer.init_state(batch, self.tokens, device, dtype)

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        tokens = append_start(self.project(u), valid, self.first)
        return self.transformer.step(tokens, self.combined, state, *appended_visible(valid, self.combined))
