"""The protocol of a combiner (P 3.2), u_1..u_t -> x_t, and the table of all combiners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from mirasol.model.chunk_transformer import Streamed, StreamState
from mirasol.model.combiners.cls import CLSCombiner
from mirasol.model.combiners.concat import ConcatCombiner
from mirasol.model.combiners.perceiver import PerceiverCombiner
from mirasol.model.combiners.transformer import TransformerCombiner
from mirasol.model.combiners.ttm import TTMCombiner
from mirasol.model.config import POOLED_COMBINERS, QUERIES, ModelConfig


class Combiner(Protocol):
    """Maps the n features of each chunk to m << n, x_t = Combiner(u_1, ..., u_t) (eq. 2), causally."""

    def __call__(self, u: Tensor, valid: Tensor | None, state: StreamState | None = None) -> Streamed:
        """u [B, T, n, d] -> x [B, T, m, d], finite also for an empty chunk.

        Features that are not ``valid``, bool [B, T, n], have no influence; ``None`` when nothing is missing. With the
        ``state`` of the chunk before, or :meth:`init_state`, T is 1 and the next state comes out.
        """

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """The state before the first chunk; every tensor has the batch first."""


def build_combiner(config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> Combiner:
    """The combiner that the config names.

    Args:
        config: the sizes.
        video_positions: [f, 2], row and column of each video token's centre as fractions of the frame.
        audio_tokens: s.

    Raises:
        ValueError: no combiner or queries of that name, two that cannot be combined, or m > n.
    """
    combiners: dict[str, Callable[..., Any]] = {
        "transformer": TransformerCombiner,
        "ttm": TTMCombiner,
        "cls": CLSCombiner,
        "perceiver": PerceiverCombiner,
        "concat": ConcatCombiner,
    }
    if config.combiner not in combiners:
        raise ValueError(f"combiner {config.combiner!r}, expected one of {sorted(combiners)}")
    if config.queries not in QUERIES:
        raise ValueError(f"queries {config.queries!r}, expected one of {QUERIES}")
    if config.queries == "pooled" and config.combiner not in POOLED_COMBINERS:
        raise ValueError(
            f"queries 'pooled' with combiner {config.combiner!r}: expected queries 'last', or one of the combiners "
            f"{POOLED_COMBINERS}"
        )
    features = video_positions.shape[0] + audio_tokens
    if config.num_queries > features:
        raise ValueError(f"m = {config.num_queries} combined features of a chunk that has n = {features}")
    combiner: Combiner = combiners[config.combiner](config, video_positions, audio_tokens)
    return combiner
