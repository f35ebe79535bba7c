"""The transformer over chunks inside the combiner and the latent model: whole clips, or one chunk at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from mirasol.model.attention.chunk_causal import BACKENDS, Visible, attend, chunk_causal_attention
from mirasol.model.attention.flex import block_mask
from mirasol.model.config import Sizes
from mirasol.model.layers import Attention, Block
from mirasol.model.positions import CHUNK_BASE, rotary_angles, rotate

StreamState = dict[str, Tensor]
Streamed = tuple[Tensor, StreamState]  # an output, and the state for the next chunk: empty after a whole clip


class ChunkTransformer(nn.Module):
    """Blocks over the tokens of all chunks. The last block computes only the output tokens.

    With ``resample`` every block does: it reads the tokens before them and leaves them unchanged, as in a Perceiver.
    With ``bidirectional`` every chunk sees every chunk, without the mask of eq. 8.

    A stream's memory is bounded: one buffer with the keys and values of the last ``window`` chunks per layer.
    """

    def __init__(
        self, sizes: Sizes, window: int, dropout: float, resample: bool = False, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.window = window
        self.backend = "auto"  # see use_backend
        self.resample = resample
        self.bidirectional = bidirectional
        self.blocks: Any = nn.ModuleList(Block(sizes, dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)

    def forward(
        self, x: Tensor, outputs: int, visible: Visible | None = None, state: StreamState | None = None
    ) -> Streamed:
        """The last ``outputs`` tokens of each chunk.

        Args:
            x: [B, T, n, d], all chunks of a clip, or with a state the next one: T = 1.
            outputs: how many tokens of a chunk to compute.
            visible: which tokens are visible, ``None`` for all.
            state: of the chunk before, or :meth:`init_state`.

        Returns:
            [B, T, outputs, d], and with a state the next one, which has this chunk in place of the oldest.
        """
        stream = None if state is None else _Stream(state, visible, *self._angles(self.window, x), x)
        cos, sin = self._angles(x.shape[1], x)
        if stream is not None:
            x = x.squeeze(1)  # one axis less: a product of four axes may round differently in an exported graph
        last = self.sizes.layers - 1
        for layer, block in enumerate(self.blocks):
            queries = outputs if self.resample or layer == last else x.shape[-2]
            y = block(x, queries, stream or self._whole(x, queries, visible, cos, sin))
            x = torch.cat([x[..., :-queries, :], y], dim=-2) if self.resample and layer < last else y
        x = self.norm(x)
        return (x, {}) if stream is None else (x.unsqueeze(1), stream.after())

    def _whole(self, x: Tensor, queries: int, visible: Visible | None, cos: Tensor, sin: Tensor) -> Attention:
        """The attention of a layer over all chunks of a clip."""
        if self.bidirectional:
            return partial(_rotated, cos=cos, sin=sin, attention=_unmasked)
        attention = partial(
            chunk_causal_attention,
            window=self.window,
            visible=visible,
            backend=self.backend,
            blocks=self._blocks(x, queries),
        )
        return partial(_rotated, cos=cos, sin=sin, attention=attention)

    def _blocks(self, x: Tensor, queries: int) -> BlockMask | None:
        """The block mask for FlexAttention: made out here, since blocks may be compiled one by one."""
        if x.device.type != "cuda" or self.backend not in ("auto", "flex"):
            return None
        chunks, keys = x.shape[1:3]
        return block_mask(chunks, queries, keys, min(self.window, chunks), x.device)

    def init_state(self, batch: int, tokens: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """``keys_values`` [B, layers, 2, R, n, heads, head], oldest chunk first, and ``valid`` bool [B, R, n]."""
        sizes = self.sizes
        shape = (batch, sizes.layers, 2, self.window, tokens, sizes.heads, sizes.head)
        return {
            "keys_values": torch.zeros(shape, device=device, dtype=dtype),
            "valid": torch.zeros(batch, self.window, tokens, device=device, dtype=torch.bool),
        }

    def _angles(self, chunks: int, x: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(chunks, device=x.device)
        cos, sin = rotary_angles(positions, self.sizes.head, CHUNK_BASE, x.dtype)
        return cos[:, None, None], sin[:, None, None]  # [T, 1, 1, head/2]


class _Stream:
    """The attention of one chunk to itself and to those in the state, called layer by layer.

    Keys are stored unrotated and rotated by their age in the buffer, so no index grows without bound.
    """

    def __init__(self, state: StreamState, visible: Visible | None, cos: Tensor, sin: Tensor, x: Tensor) -> None:
        if visible is None:
            seen = torch.ones_like(x[..., 0], dtype=torch.bool)
            visible = Visible(seen, seen)
        past = state["valid"][:, 1:]
        self.mask = torch.cat([past, visible.own], dim=1).flatten(1)[:, None, None]
        self.valid = torch.cat([past, visible.later], dim=1)
        self.before, self.stored = state["keys_values"], list[Tensor]()
        self.cos, self.sin = cos, sin  # [R, 1, 1, head/2]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, nq, heads, head], k and v [B, n, heads, head] -> [B, nq, heads, head]."""
        kept = self.before[:, len(self.stored), :, 1:]  # [B, 2, R-1, n, heads, head]
        kept = torch.cat([kept, torch.stack([k, v], dim=1)[:, :, None]], dim=2)
        self.stored.append(kept)
        keys = rotate(kept[:, 0], self.cos, self.sin).flatten(1, 2)
        return attend(rotate(q, self.cos[-1], self.sin[-1]), keys, kept[:, 1].flatten(1, 2), self.mask)

    def after(self) -> StreamState:
        """The state after this chunk."""
        return {"keys_values": torch.stack(self.stored, dim=1), "valid": self.valid}


def _rotated(q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
    return attention(rotate(q, cos, sin), rotate(k, cos, sin), v)


def _unmasked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)).unflatten(1, q.shape[1:3])


def use_backend(model: nn.Module, backend: str) -> None:
    """Let every transformer over chunks in ``model`` compute its attention with ``backend``; no weight changes.

    Raises:
        ValueError: no backend of that name.
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention backend {backend!r}, expected one of {BACKENDS}")
    for module in model.modules():
        if isinstance(module, ChunkTransformer):
            module.backend = backend
