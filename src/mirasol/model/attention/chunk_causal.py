"""Chunk-causal attention (P 3.3.1, eq. 8): features of a chunk see all of their chunk and of the chunks before.

Three equal backends behind one function. ``dense`` evaluates one masked attention: the oracle. ``loop`` makes one
call per chunk over the keys that the chunk may see, without a causal mask: about half the work, and what a streaming
step is. ``flex`` is one fused FlexAttention call that skips the blocks which nobody may look at. ``auto`` takes
``flex`` on a CUDA device and ``loop`` everywhere else (docs/decisions/0020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from mirasol.model.attention import flex as attention_flex
from mirasol.model.attention import loop as attention_loop

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
    own_valid: Tensor | None = None,
    later_valid: Tensor | None = None,
    backend: str = "auto",
    blocks: BlockMask | None = None,
) -> Tensor:
    """Attention of the queries of every chunk over its own keys and those of the ``window - 1`` chunks before.

    Args:
        q: [B, T, nq, heads, head].
        k: [B, T, n, heads, head]; v the same.
        window: chunks that a query sees, its own included.
        own_valid: bool [B, T, n], keys that their own chunk sees; ``None`` for all. Every query needs one.
        later_valid: bool [B, T, n], keys that later chunks see; given together with ``own_valid``.
        backend: one of :data:`BACKENDS`.
        blocks: for ``flex``, what :func:`mirasol.model.attention.flex.block_mask` gives for these shapes; asked for
            if ``None``, which inside of torch.compile means made again in every call.

    Returns:
        [B, T, nq, heads, head].

    Raises:
        ValueError: unknown backend, one that cannot do this on the device of ``q``, a window of less than one
            chunk, or (looked at on a CPU only: a GPU would have to be waited for) a chunk that sees no key of its own.
    """
    if window < 1:
        raise ValueError(f"attention window of {window} chunks, expected at least 1")
    if (own_valid is None) != (later_valid is None):
        raise ValueError("own_valid and later_valid go together: one of them is None")
    if own_valid is not None and own_valid.device.type == "cpu" and not bool(own_valid.any(dim=-1).all()):
        hidden = int((~own_valid.any(dim=-1)).sum())
        raise ValueError(f"own_valid hides every key of {hidden} chunk(s), expected at least one that is seen in each")
    if backend == "auto":
        backend = "flex" if attention_flex.is_best_for(q) else "loop"
    if backend == "flex":
        return attention_flex.attention(q, k, v, window, own_valid, later_valid, blocks)
    if backend == "loop":
        if attention_loop.is_fused_for(q, k, v):
            return attention_loop.FusedLoop.apply(q, k, v, window, own_valid, later_valid)
        return _loop(q, k, v, window, own_valid, later_valid)
    if backend == "dense":
        return _dense(q, k, v, window, own_valid, later_valid)
    raise ValueError(f"attention backend {backend!r}, expected one of {BACKENDS}")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of q [B, nq, heads, head] over k, v [B, n, heads, head]; same layout out.

    ``mask`` is bool, broadcast to [B, heads, nq, n], True where a query may look;
    with ``causal`` it looks at the keys up to its own index.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)


def _dense(
    q: Tensor, k: Tensor, v: Tensor, window: int, own_valid: Tensor | None, later_valid: Tensor | None
) -> Tensor:
    chunks, queries, keys = q.shape[1], q.shape[2], k.shape[2]
    mask = chunk_causal_mask(chunks, queries, keys, window, q.device)
    if own_valid is not None and later_valid is not None:
        own = chunk_causal_mask(chunks, queries, keys, 1, q.device)
        valid = torch.where(own, own_valid.flatten(1)[:, None], later_valid.flatten(1)[:, None])
        mask = (mask & valid)[:, None]  # [B, 1, T*nq, T*n]
    return attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), mask).unflatten(1, (chunks, queries))


def _loop(q: Tensor, k: Tensor, v: Tensor, window: int, own_valid: Tensor | None, later_valid: Tensor | None) -> Tensor:
    per_chunk = k.shape[2]
    k, v = k.flatten(1, 2), v.flatten(1, 2)
    outputs = []
    for t, queries in enumerate(q.unbind(1)):
        first = max(0, t - window + 1)
        seen = slice(first * per_chunk, (t + 1) * per_chunk)
        mask = attention_loop.seen_by(t, first, own_valid, later_valid)
        outputs.append(attend(queries, k[:, seen], v[:, seen], mask))
    return torch.stack(outputs, dim=1)
