"""Chunk-causal attention (P 3.3.1, eq. 8): features of a chunk see all of their chunk and of the chunks before.

Three equal backends behind one function. ``dense`` evaluates one masked attention: the oracle. ``loop`` makes one
call per chunk over its visible keys, without a causal mask: about half the work, and the same as a streaming step.
``flex`` is one fused FlexAttention call that skips masked blocks. ``auto`` takes ``flex`` on a CUDA device and
``loop`` everywhere else (docs/decisions/0020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from mirasol.model.attention import flex, loop
from mirasol.model.attention.visible import Visible

BACKENDS = ("auto", "dense", "loop", "flex")


def chunk_causal_mask(chunks: int, queries: int, keys: int, window: int, device: torch.device | None = None) -> Tensor:
    """Eq. 8 with a window, bool [T*queries, T*keys], True where a query may look.

    A query of chunk t sees the keys of chunks t-window+1 .. t.
    """
    t = torch.arange(chunks, device=device)
    age = t[:, None] - t[None, :]
    seen = (age >= 0) & (age < window)
    return seen.repeat_interleave(queries, 0).repeat_interleave(keys, 1)


def chunk_causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    visible: Visible | None = None,
    backend: str = "auto",
    blocks: BlockMask | None = None,
) -> Tensor:
    """Attention of the queries of every chunk over its own keys and those of the ``window - 1`` chunks before.

    Args:
        q: [B, T, nq, heads, head].
        k: [B, T, n, heads, head]; v the same.
        window: chunks that a query sees, its own included.
        visible: which keys are visible, ``None`` for all. Every query needs one of its own chunk.
        backend: one of :data:`BACKENDS`.
        blocks: for ``flex``, :func:`mirasol.model.attention.flex.block_mask` of these shapes; if ``None`` it is looked
            up, which inside of torch.compile means made in every call.

    Returns:
        [B, T, nq, heads, head].

    Raises:
        ValueError: unknown backend, one that does not support the device of ``q``, a window of less than one
            chunk, or (checked on a CPU only, since the host would wait for a GPU) a chunk that sees no key of its own.
    """
    if window < 1:
        raise ValueError(f"attention window of {window} chunks, expected at least 1")
    if visible is not None and visible.own.device.type == "cpu" and not torch.compiler.is_compiling():
        hidden = int((~visible.own.any(dim=-1)).sum())
        if hidden:
            raise ValueError(
                f"visible.own hides every key of {hidden} chunk(s), expected at least one that is seen in each"
            )
    if backend == "auto":
        backend = "flex" if flex.is_best_for(q) else "loop"
    if backend == "flex":
        return flex.attention(q, k, v, window, visible, blocks)
    if backend == "loop":
        if loop.is_fused_for(q, k, v):
            return loop.FusedLoop.apply(q, k, v, window, *(visible or (None, None)))
        return _loop(q, k, v, window, visible)
    if backend == "dense":
        return _dense(q, k, v, window, visible)
    raise ValueError(f"attention backend {backend!r}, expected one of {BACKENDS}")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of q [B, nq, heads, head] over k, v [B, n, heads, head]; same layout out.

    ``mask`` is bool, broadcast to [B, heads, nq, n], True where a query may look;
    with ``causal`` it looks at the keys up to its own index.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


def _dense(q: Tensor, k: Tensor, v: Tensor, window: int, visible: Visible | None) -> Tensor:
    chunks, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    mask = chunk_causal_mask(chunks, queries, keys, window, q.device)
    if visible is not None:
        own = chunk_causal_mask(chunks, queries, keys, 1, q.device)
        valid = torch.where(own, visible.own.flatten(1)[:, None], visible.later.flatten(1)[:, None])
        mask = (mask & valid)[:, None]  # [B, 1, T*nq, T*n]
    return attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), mask).unflatten(1, (chunks, queries))


def _loop(q: Tensor, k: Tensor, v: Tensor, window: int, visible: Visible | None) -> Tensor:
    per_chunk = k.shape[2]
    k, v = k.flatten(1, 2), v.flatten(1, 2)
    outputs = []
    for t, queries in enumerate(q.unbind(1)):
        first = max(0, t - window + 1)
        seen = slice(first * per_chunk, (t + 1) * per_chunk)
        outputs.append(attend(queries, k[:, seen], v[:, seen], loop.seen_by(t, first, visible)))
    return torch.stack(outputs, dim=1)
