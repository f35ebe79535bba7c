"""The latent models (P 3.3): causal, h_t from x_1..x_t trained towards x_{t+1}; and what the ablations put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, StreamState
from mirasol.model.config import ModelConfig


class LatentModel(Protocol):
    """Maps the combined features x of all chunks to the latents h of the same shape."""

    predicts: bool  # whether h_t is trained towards x_{t+1}

    def __call__(self, x: Tensor) -> Tensor:
        """[B, T, m, d] -> [B, T, m, d]."""

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """What is known before the first chunk; every tensor has the batch first."""

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """One chunk: x_t [B, m, d] -> h_t [B, m, d]."""


class CausalLatent(nn.Module):
    """A chunk-causal transformer over the combined features (eq. 8)."""

    predicts = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.combined = config.combined
        self.mask_rate = config.feature_mask
        self.transformer = ChunkTransformer(config.latent_sizes, config.max_chunks, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, m, d] -> [B, T, m, d]. In training, features are masked at random before (P 3.6)."""
        if self.training:
            x = mask_features(x, self.mask_rate)
        return self.transformer(x, self.combined)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks; every tensor has the batch first."""
        return self.transformer.init_state(batch, self.combined, device, dtype)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """One chunk: x_t [B, m, d] -> h_t [B, m, d]."""
        seen = torch.ones_like(x[..., 0], dtype=torch.bool)
        return self.transformer.step(x, self.combined, state, seen, seen)


class BidirectionalLatent(nn.Module):
    """The same transformer without the mask of eq. 8 (P table 5c, "BD"): every chunk sees every chunk.

    Its h_t has seen x_{t+1}, so that the latent and the video loss are no predictions. It needs the whole clip.
    """

    predicts = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mask_rate = config.feature_mask
        self.transformer = ChunkTransformer(config.latent_sizes, config.max_chunks, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, m, d] -> [B, T, m, d]. In training, features are masked at random before (P 3.6)."""
        if self.training:
            x = mask_features(x, self.mask_rate)
        return self.transformer.bidirectional(x)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(CANNOT_STREAM)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(CANNOT_STREAM)


class NoLatent(nn.Module):
    """h = x: nothing is learnt, nothing masked. The latent loss is zero; the video loss looks ahead from x_t."""

    predicts = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, m, d], as it is."""
        return x

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Nothing."""
        return {}

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """x_t [B, m, d], as it is."""
        return x, {}


CANNOT_STREAM = (
    "latent model 'bidirectional' sees the chunks to come and cannot stream: run whole clips, or train with "
    "`model.latent` causal or none to stream and to export"
)


def mask_features(x: Tensor, rate: float) -> Tensor:
    """x [..., d] with a share ``rate`` of its vectors set to zero at random (P 3.6)."""
    if rate == 0:
        return x
    kept = torch.rand(x.shape[:-1], device=x.device) >= rate
    return x * kept[..., None]


def build_latent(config: ModelConfig) -> LatentModel:
    """The latent model that the config names.

    Raises:
        ValueError: there is none of that name, or x and h differ in width.
    """
    latents: dict[str, Callable[..., Any]] = {
        "causal": CausalLatent,
        "bidirectional": BidirectionalLatent,
        "none": NoLatent,
    }
    if config.latent not in latents:
        raise ValueError(f"latent model {config.latent!r}, expected one of {sorted(latents)}")
    if config.latent_sizes.width != config.combiner_sizes.width:
        raise ValueError(
            f"latent width {config.latent_sizes.width}, combiner width {config.combiner_sizes.width}: "
            "h_t is compared with x_{t+1}, so they are one"
        )
    latent: LatentModel = latents[config.latent](config)
    return latent
