"""No combiner: the "concatenation of the features" of the ablations' baseline (P table 5a, S 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import StreamState
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection


class ConcatCombiner(nn.Module):
    """The features of a chunk in their order, video then audio, in m runs; the mean of each run leaves.

    With m = n it is the concatenation itself, x = u. Nothing is learnt beyond a change of width, and chunks do not
    see each other (docs/decisions/0015). A run of which nothing is there is zero.
    """

    runs: Tensor

    def __init__(self, config: ModelConfig, video_places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        features = video_places.shape[0] + audio_tokens
        self.project = projection(config.vit.width, config.combiner_sizes.width)
        run = torch.arange(features) * config.combined // features  # of each feature; nearly equal ones
        runs = (run == torch.arange(config.combined)[:, None]).float()
        self.register_buffer("runs", runs, persistent=False)  # [m, n]

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        return self._means(self.project(u), torch.ones_like(u[..., 0], dtype=torch.bool) if valid is None else valid)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Nothing: a chunk is all that it sees."""
        return {}

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        return self._means(self.project(u), valid), {}

    def _means(self, u: Tensor, valid: Tensor) -> Tensor:
        weights = self.runs * valid[..., None, :]  # [..., m, n]
        counts = weights.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return (weights / counts) @ torch.where(valid[..., None], u, 0.0)
