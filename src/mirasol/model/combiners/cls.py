"""The CLS-token combiner (P 4.1, S figure 1): the transformer combiner with m learned output features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, Streamed, StreamState
from mirasol.model.combiners.pooled import LearnedStart, append_start, visible_tokens
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class CLSCombiner(nn.Module):
    """m learned features are appended to the sequence of each chunk; after all layers they are x.

    The chunk's features and later chunks see them like any other feature (eq. 8).
    """

    def __init__(self, config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.tokens = video_positions.shape[0] + audio_tokens + config.num_queries
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        self.first = LearnedStart(config)
        self.transformer = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout)

    def forward(self, u: Tensor, valid: Tensor | None, state: StreamState | None = None) -> Streamed:
        """[B, T, n, d] -> [B, T, m, d]."""
        tokens = append_start(self.project(u), valid, self.first)
        return self.transformer(tokens, self.num_queries, visible_tokens(valid, self.num_queries), state)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        return self.transformer.init_state(batch, self.tokens, device, dtype)
