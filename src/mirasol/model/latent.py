"""The latent models (P 3.3): causal, h_t from x_1..x_t trained towards x_{t+1}; and two others for the ablations."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from mirasol.model.chunk_transformer import ChunkTransformer, Streamed, StreamState
from mirasol.model.config import LATENTS, ModelConfig


class LatentModel(Protocol):
    """Maps the combined features x of all chunks to the latents h of the same shape."""

    predicts: bool  # whether h_t is trained towards x_{t+1}

    def __call__(self, x: Tensor, state: StreamState | None = None) -> Streamed:
        """x [B, T, m, d] -> h [B, T, m, d]; with the state of the chunk before T is 1, and the next state comes out."""

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """The state before the first chunk; every tensor has the batch first."""


class TransformerLatent(nn.Module):
    """A transformer over the combined features of all chunks.

    `causal`, eq. 8; or `bidirectional`, every chunk sees every chunk (P table 5c, "BD"): h_t has then seen x_{t+1},
    so that the latent and the video loss are no predictions, and it needs the whole clip.
    """

    predicts = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.bidirectional = config.latent == "bidirectional"
        self.transformer = ChunkTransformer(
            config.latent_sizes, config.max_chunks, config.dropout, bidirectional=self.bidirectional
        )

    def forward(self, x: Tensor, state: StreamState | None = None) -> Streamed:
        """As of :class:`LatentModel`.

        Raises:
            ValueError: a state for the bidirectional model.
        """
        if state is not None:
            self._require_stream()
        return self.transformer(x, self.num_queries, state=state)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Keys and values of the last R chunks.

        Raises:
            ValueError: the bidirectional model has no state.
        """
        self._require_stream()
        return self.transformer.init_state(batch, self.num_queries, device, dtype)

    def _require_stream(self) -> None:
        if self.bidirectional:
            raise ValueError(
                "latent model 'bidirectional' sees the chunks to come and cannot stream: run whole clips, or train "
                "with `model.latent` causal or none to stream and to export"
            )


class NoLatent(nn.Module):
    """h = x: nothing is learnt, nothing masked. The latent loss is zero; the video loss looks ahead from x_t."""

    predicts = False

    def forward(self, x: Tensor, state: StreamState | None = None) -> Streamed:
        """x [B, T, m, d], unchanged."""
        return x, {}

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """Nothing."""
        return {}


def build_latent(config: ModelConfig) -> LatentModel:
    """The latent model that the config names.

    Raises:
        ValueError: no latent model of that name, or x and h differ in width.
    """
    if config.latent not in LATENTS:
        raise ValueError(f"latent model {config.latent!r}, expected one of {sorted(LATENTS)}")
    if config.latent_sizes.width != config.combiner_sizes.width:
        raise ValueError(
            f"latent width {config.latent_sizes.width}, combiner width {config.combiner_sizes.width}: "
            "h_t is compared with x_{t+1}, so they are one"
        )
    return NoLatent() if config.latent == "none" else TransformerLatent(config)
