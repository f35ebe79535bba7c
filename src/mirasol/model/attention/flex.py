"""Chunk-causal attention as one FlexAttention call: compiled on a CUDA device, evaluated as written elsewhere."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # side of the blocks that are skipped or computed as a whole, FlexAttention's default
SMALLEST_HEAD = 16  # FlexAttention compiles no kernel for narrower heads
KEPT = 64  # block masks
COMPILED = 64  # shapes that may be compiled before torch would fall back to the slow path (its default is 8)


def is_best_for(q: Tensor) -> bool:
    """Whether these queries [B, T, nq, heads, head] are on a device, and of a type, that has a fused kernel."""
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    return q.device.type == "cuda" and q.dtype in kinds and q.shape[-1] >= SMALLEST_HEAD


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    own_valid: Tensor | None,
    later_valid: Tensor | None,
    blocks: BlockMask | None,
) -> Tensor:
    """Arguments and result as of :func:`mirasol.model.attention.chunk_causal.chunk_causal_attention`.

    Raises:
        ValueError: a gradient is wanted on a CPU, where FlexAttention has none.
    """
    if q.device.type == "cpu" and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise ValueError("attention backend 'flex' has no backward pass on a CPU, expected 'auto', 'loop' or 'dense'")
    chunks, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    if blocks is None:
        blocks = block_mask(chunks, queries, keys, min(window, chunks), q.device)
    visible = None if own_valid is None or later_valid is None else _visible(queries, keys, own_valid, later_valid)
    heads_first = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    out: Tensor = _call(q.device)(*heads_first, score_mod=visible, block_mask=blocks)
    return out.transpose(1, 2).unflatten(1, (chunks, queries))


@functools.lru_cache(maxsize=KEPT)
def block_mask(chunks: int, queries: int, keys: int, window: int, device: torch.device) -> BlockMask:
    """Which blocks of the mask of eq. 8 are empty, full or mixed; kept, since every layer and step asks again.

    Computed from the chunks at the edges of each block: torch's own ``create_block_mask`` evaluates all of the
    T*queries x T*keys entries, 22 GB of them for 512 frames at 224.
    """

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        age = query // queries - key // keys
        return (age >= 0) & (age < window)

    first_q, last_q, whole_q = _edges(chunks, queries)
    first_k, last_k, whole_k = _edges(chunks, keys)
    youngest, oldest = first_q[:, None] - last_k, last_q[:, None] - first_k  # ages that occur in a block
    some = (oldest >= 0) & (youngest < window)
    full = (youngest >= 0) & (oldest < window) & whole_q[:, None] & whole_k
    mixed = some & ~full
    return BlockMask.from_kv_blocks(
        *_ordered(mixed, device),
        *_ordered(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=seen,
        seq_lengths=(chunks * queries, chunks * keys),
    )


def _edges(chunks: int, per_chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each block of tokens: the chunk of its first and of its last token, and whether no token is missing."""
    tokens = chunks * per_chunk
    start = torch.arange(0, tokens, BLOCK)
    end = (start + BLOCK).clamp(max=tokens)
    return start // per_chunk, (end - 1) // per_chunk, start + BLOCK <= tokens


def _ordered(blocks: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each row of bool [rows, columns], how many columns are True, and their indices first: with B = heads = 1."""
    counts = blocks.sum(dim=-1)
    indices = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    counts, indices = (x[None, None].to(device, torch.int32) for x in (counts, indices))
    return counts, indices


def _visible(queries: int, keys: int, own_valid: Tensor, later_valid: Tensor) -> Callable[..., Tensor]:
    """A change of scores that hides missing keys: they differ from batch to batch, the block mask does not."""
    own, later = own_valid.flatten(1), later_valid.flatten(1)

    def visible(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        valid = torch.where(query // queries == key // keys, own[batch, key], later[batch, key])
        return torch.where(valid, score, float("-inf"))

    return visible


def _call(device: torch.device) -> Callable[..., Tensor]:
    if torch.compiler.is_compiling():  # it becomes a part of what is compiled around it
        return flex_attention
    return _compiled if device.type == "cuda" else _as_written


@functools.cache
def _kernels() -> Callable[..., Tensor]:
    kernels: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return kernels


def _compiled(*tensors: Tensor, **choices: object) -> Tensor:
    with torch._dynamo.config.patch(recompile_limit=COMPILED):
        return _kernels()(*tensors, **choices)


def _as_written(*tensors: Tensor, **choices: object) -> Tensor:
    with warnings.catch_warnings():  # that it is slow: here it is for tests
        warnings.simplefilter("ignore")
        return flex_attention(*tensors, **choices)  # type: ignore[call-overload]
