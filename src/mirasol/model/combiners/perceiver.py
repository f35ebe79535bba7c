"""The Perceiver combiner (P 4.1, S 3): m queries read the features, which stay what they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.combiners.pooled import LearnedStart, PooledStart, append_start, appended_visible
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class PerceiverCombiner(nn.Module):
    """A resampler as in Flamingo ([2] of the paper): cross-attention and MLP, layer by layer, for the queries alone.

    Keys are the features and the queries of the chunk and of the chunks before. The queries are learned; with
    ``queries: pooled`` pooled features of the chunk are added to them.
    """

    def __init__(self, config: ModelConfig, video_places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.combined = config.combined
        self.tokens = video_places.shape[0] + audio_tokens + config.combined
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        pooled = config.queries == "pooled"
        self.first = PooledStart(config, video_places, audio_tokens) if pooled else LearnedStart(config)
        self.resampler = ChunkTransformer(config.combiner_sizes, config.max_chunks, config.dropout, resample=True)

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        own, later = (None, None) if valid is None else appended_visible(valid, self.combined)
        return self.resampler(append_start(self.project(u), valid, self.first), self.combined, own, later)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks."""
        return self.resampler.init_state(batch, self.tokens, device, dtype)

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        tokens = append_start(self.project(u), valid, self.first)
        return self.resampler.step(tokens, self.combined, state, *appended_visible(valid, self.combined))
