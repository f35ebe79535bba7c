"""The causal latent model (P 3.3): h_t from x_1..x_t, trained towards x_{t+1}."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.config import ModelConfig


class CausalLatent(nn.Module):
    """A chunk-causal transformer over the combined features (eq. 8)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.latent_sizes.width != config.combiner_sizes.width:
            raise ValueError(
                f"latent width {config.latent_sizes.width}, combiner width {config.combiner_sizes.width}: "
                "h_t is compared with x_{t+1}, so they are one"
            )
        self.combined = config.combined
        self.mask_rate = config.feature_mask
        self.transformer = ChunkTransformer(config.latent_sizes, config.max_chunks, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, m, d] -> [B, T, m, d]. In training, features are masked at random before (P 3.6)."""
        if self.training and self.mask_rate > 0:
            kept = torch.rand(x.shape[:-1], device=x.device) >= self.mask_rate
            x = x * kept[..., None]
        return self.transformer(x, self.combined)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks; every tensor has the batch first."""
        return self.transformer.init_state(batch, self.combined, device, dtype)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """One chunk: x_t [B, m, d] -> h_t [B, m, d]."""
        seen = torch.ones_like(x[..., 0], dtype=torch.bool)
        return self.transformer.step(x, self.combined, state, seen, seen)


def build_latent(config: ModelConfig) -> CausalLatent:
    """The latent model that the config names.

    Raises:
        ValueError: there is none of that name.
    """
    latents = {"causal": CausalLatent}
    if config.latent not in latents:
        raise ValueError(f"latent model {config.latent!r}, expected one of {sorted(latents)}")
    return latents[config.latent](config)
