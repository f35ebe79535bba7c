"""The transformer over chunks that the combiner and the latent model are: whole clip, or one chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from mirasol.model.attention.chunk_causal import BACKENDS, attend, chunk_causal_attention
from mirasol.model.attention.flex import block_mask
from mirasol.model.config import Sizes
from mirasol.model.layers import MLP, split_heads
from mirasol.model.positions import CHUNK_BASE, rotary_angles, rotate

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, T, n, heads, head]
StreamState = dict[str, Tensor]


class ChunkBlock(nn.Module):
    """A pre-norm block whose attention is chunk-causal, with rotary angles over the chunk index."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.inner = sizes.heads * sizes.head
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.qkv = nn.Linear(sizes.width, 3 * self.inner)
        self.out = nn.Linear(self.inner, sizes.width)
        self.mlp = MLP(sizes, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, outputs: int, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
        """The layer over all chunks at once: [B, T, n, d] -> [B, T, outputs, d]."""
        q, k, v = self.qkv_of(x, outputs)
        return self.finish(x, attention(rotate(q, cos, sin), rotate(k, cos, sin), v))

    def qkv_of(self, x: Tensor, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the last ``outputs`` tokens, keys and values of all: [..., n, heads, head]."""
        y = self.norm(x)
        if outputs == x.shape[-2]:
            q, k, v = self.qkv(y).chunk(3, dim=-1)
        else:  # the other tokens' queries lead nowhere
            weight, bias = self.qkv.weight, self.qkv.bias
            q = nn.functional.linear(y[..., -outputs:, :], weight[: self.inner], bias[: self.inner])
            k, v = nn.functional.linear(y, weight[self.inner :], bias[self.inner :]).chunk(2, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The residual stream [..., outputs, d] after attention ([..., outputs, heads, head]) and MLP."""
        return self.mlp(x[..., -mixed.shape[-3] :, :] + self.dropout(self.out(mixed.flatten(-2))))


class ChunkTransformer(nn.Module):
    """Blocks over the tokens of all chunks. The last block computes only the tokens that leave.

    With ``resample`` every block does: the tokens before them are read and stay what they were, as in a Perceiver.

    A stream's memory is bounded: one buffer with the keys and values of the last ``window`` chunks per layer.
    """

    def __init__(self, sizes: Sizes, window: int, dropout: float, resample: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.window = window
        self.backend = "auto"  # see use_backend
        self.resample = resample
        self.blocks: Any = nn.ModuleList(ChunkBlock(sizes, dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)

    def _outputs(self, layer: int, tokens: int, outputs: int) -> int:
        return outputs if self.resample or layer == self.sizes.layers - 1 else tokens

    def _next(self, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """What the next block is given, after block ``layer`` has made ``y`` of the last tokens of ``x``."""
        read_again = self.resample and layer < self.sizes.layers - 1
        return torch.cat([x[..., : -y.shape[-2], :], y], dim=-2) if read_again else y

    def forward(
        self,
        x: Tensor,
        outputs: int,
        own_valid: Tensor | None = None,
        later_valid: Tensor | None = None,
    ) -> Tensor:
        """All chunks at once: [B, T, n, d] -> [B, T, outputs, d], the last ``outputs`` tokens of each chunk.

        ``own_valid`` and ``later_valid``, bool [B, T, n]: the keys that their own chunk and later chunks see.
        """
        attention = partial(
            chunk_causal_attention,
            window=self.window,
            own_valid=own_valid,
            later_valid=later_valid,
            backend=self.backend,
        )
        cos, sin = self._angles(x.shape[1], x)
        for layer, block in enumerate(self.blocks):
            queries = self._outputs(layer, x.shape[2], outputs)
            y = block(x, queries, cos, sin, partial(attention, blocks=self._blocks(x, queries)))
            x = self._next(layer, x, y)
        return self.norm(x)

    def _blocks(self, x: Tensor, queries: int) -> BlockMask | None:
        """The block mask where FlexAttention will ask for it: out here, since blocks may be compiled one by one."""
        if x.device.type != "cuda" or self.backend not in ("auto", "flex"):
            return None
        chunks, keys = x.shape[1:3]
        return block_mask(chunks, queries, keys, min(self.window, chunks), x.device)

    def bidirectional(self, x: Tensor) -> Tensor:
        """All chunks at once without the mask of eq. 8: [B, T, n, d] -> [B, T, n, d]; for ablations."""
        cos, sin = self._angles(x.shape[1], x)
        for block in self.blocks:
            x = block(x, x.shape[2], cos, sin, _unmasked)
        return self.norm(x)

    def init_state(self, batch: int, tokens: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """``keys_values`` [B, layers, 2, R, n, heads, head], oldest chunk first, and ``valid`` bool [B, R, n]."""
        sizes = self.sizes
        shape = (batch, sizes.layers, 2, self.window, tokens, sizes.heads, sizes.head)
        return {
            "keys_values": torch.zeros(shape, device=device, dtype=dtype),
            "valid": torch.zeros(batch, self.window, tokens, device=device, dtype=torch.bool),
        }

    def step(
        self, x: Tensor, outputs: int, state: StreamState, own_valid: Tensor, later_valid: Tensor
    ) -> tuple[Tensor, StreamState]:
        """One chunk [B, n, d] -> [B, outputs, d] and the state with this chunk in place of the oldest.

        Keys are stored as they are and rotated by their age in the buffer, so nothing counts upwards.
        """
        cos, sin = self._angles(self.window, x)  # [R, 1, 1, head/2]
        past = state["valid"][:, 1:]
        mask = torch.cat([past, own_valid[:, None]], dim=1).flatten(1)[:, None, None]
        stored = []
        for layer, block in enumerate(self.blocks):
            q, k, v = block.qkv_of(x, self._outputs(layer, x.shape[1], outputs))
            new = torch.stack([k, v], dim=1)  # [B, 2, n, heads, head]
            keys_values = torch.cat([state["keys_values"][:, layer, :, 1:], new[:, :, None]], dim=2)
            stored.append(keys_values)
            keys = rotate(keys_values[:, 0], cos, sin).flatten(1, 2)
            mixed = attend(rotate(q, cos[-1], sin[-1]), keys, keys_values[:, 1].flatten(1, 2), mask)
            x = self._next(layer, x, block.finish(x, mixed))
        valid = torch.cat([past, later_valid[:, None]], dim=1)
        return self.norm(x), {"keys_values": torch.stack(stored, dim=1), "valid": valid}

    def _angles(self, chunks: int, x: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(chunks, device=x.device)
        cos, sin = rotary_angles(positions, self.sizes.head, CHUNK_BASE, x.dtype)
        return cos[:, None, None], sin[:, None, None]


def _unmasked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)).unflatten(1, q.shape[1:3])


def use_backend(model: nn.Module, backend: str) -> None:
    """Let every transformer over chunks in ``model`` compute its attention with ``backend``; no weight knows of it.

    Raises:
        ValueError: no backend of that name.
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention backend {backend!r}, expected one of {BACKENDS}")
    for module in model.modules():
        if isinstance(module, ChunkTransformer):
            module.backend = backend
