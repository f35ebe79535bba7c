"""No combiner: the "concatenation of the features" of the ablations' baseline (P table 5a, S 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import Streamed, StreamState
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class ConcatCombiner(nn.Module):
    """The features of a chunk in their order, video then audio, in m runs; the mean of each run is an output feature.

    With m = n it is the concatenation itself, x = u. Nothing is learnt beyond a change of width, and chunks do not
    see each other (docs/decisions/0015). An empty run is zero.
    """

    runs: Tensor

    def __init__(self, config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> None:
        super().__init__()
        features = video_positions.shape[0] + audio_tokens
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        run = torch.arange(features) * config.num_queries // features  # of each feature; of nearly equal length
        runs = (run == torch.arange(config.num_queries)[:, None]).float()
        self.register_buffer("runs", runs, persistent=False)  # [m, n]

    def forward(self, u: Tensor, valid: Tensor | None, state: StreamState | None = None) -> Streamed:
        """[B, T, n, d] -> [B, T, m, d]."""
        u = self.project(u)
        valid = torch.ones_like(u[..., 0], dtype=torch.bool) if valid is None else valid
        weights = self.runs * valid[..., None, :]  # [B, T, m, n]
        counts = weights.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return (weights / counts) @ torch.where(valid[..., None], u, 0.0), {}

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Nothing: a chunk sees no other."""
        return {}
