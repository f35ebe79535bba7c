"""The causal transformer combiner (P 3.2, figure 4 left)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, Streamed, StreamState
from mirasol.model.combiners.pooled import PooledStart, append_start, visible_tokens
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class TransformerCombiner(nn.Module):
    """All features of a chunk and of the chunks before it go in; the last m of the chunk's sequence come out.

    With ``queries: pooled``, m features are added to the chunk's sequence for this purpose.
    """

    def __init__(self, config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.features = video_positions.shape[0] + audio_tokens
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        self.transformer = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout)
        self.pooled = PooledStart(config, video_positions, audio_tokens) if config.queries == "pooled" else None

    def forward(self, u: Tensor, valid: Tensor | None, state: StreamState | None = None) -> Streamed:
        """[B, T, n, d] -> [B, T, m, d]."""
        tokens = append_start(self.project(u), valid, self.pooled)
        visible = visible_tokens(valid, self.num_queries, added=self.pooled is not None)
        return self.transformer(tokens, self.num_queries, visible, state)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        tokens = self.features + (0 if self.pooled is None else self.num_queries)
        return self.transformer.init_state(batch, tokens, device, dtype)
