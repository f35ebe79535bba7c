"""The chunk loop on a CPU, forward and backward, without the copies that autograd would make.

Left to autograd, each chunk's slice of the keys gets a gradient of the size of all keys, each chunk's output is kept
beside the stacked one, and the values are read at the stride of the projection that made queries, keys and values.
Here the gradients are summed in place, the output is kept once, and keys and values are laid out once per head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEYS = 512  # keys of one backward call: what the kernel takes at a time itself, so that longer calls save nothing

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_kernel_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def is_fused_for(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether :class:`FusedLoop` can take these: on a CPU, of one type."""
    return q.device.type == "cpu" and q.dtype == k.dtype == v.dtype


def seen_by(t: int, first: int, own_valid: Tensor | None, later_valid: Tensor | None) -> Tensor | None:
    """Which keys of chunks ``first`` .. ``t`` chunk ``t`` sees, bool [B, 1, 1, keys]; ``None`` for all."""
    if own_valid is None or later_valid is None:
        return None
    valid = torch.cat([later_valid[:, first:t], own_valid[:, t : t + 1]], dim=1)
    return valid.flatten(1)[:, None, None]


class FusedLoop(torch.autograd.Function):
    """One call of torch's fused CPU attention per chunk; arguments as of ``chunk_causal_attention``."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, own_valid: Tensor | None, later_valid: Tensor | None
    ) -> Tensor:
        """[B, T, nq, heads, head] for each of q, k, v -> [B, T, nq, heads, head]."""
        per_chunk = k.shape[2]
        k, v = (x.flatten(1, 2).transpose(1, 2).contiguous() for x in (k, v))  # [B, heads, T*n, head]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        sums = []
        for t in range(q.shape[1]):
            first = max(0, t - window + 1)
            seen = slice(first * per_chunk, (t + 1) * per_chunk)
            mask = _additive(seen_by(t, first, own_valid, later_valid), q.dtype)
            mixed, log_sum = _kernel(q[:, t].transpose(1, 2), k[:, :, seen], v[:, :, seen], attn_mask=mask)
            out[:, t] = mixed.transpose(1, 2)
            sums.append(log_sum)
        ctx.save_for_backward(q, k, v, out, own_valid, later_valid, *sums)
        ctx.window, ctx.per_chunk = window, per_chunk
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Gradients of q, k and v."""
        q, k, v, out, own_valid, later_valid, *sums = ctx.saved_tensors
        chunks, per_chunk = q.shape[1], ctx.per_chunk
        grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
        piece = max(1, KEYS // per_chunk) * per_chunk
        for t in reversed(range(chunks)):  # the order in which autograd would sum
            first = max(0, t - ctx.window + 1)
            mask = _additive(seen_by(t, first, own_valid, later_valid), q.dtype)
            queries, mixed, grad_mixed = (x[:, t].transpose(1, 2) for x in (q, out, grad))
            start, end = first * per_chunk, (t + 1) * per_chunk
            for a in range(start, end, piece):
                keys = slice(a, min(a + piece, end))
                part = None if mask is None else mask[..., keys.start - start : keys.stop - start]
                pair = (k[:, :, keys], v[:, :, keys])
                grads = _kernel_backward(
                    grad_mixed, queries, *pair, mixed, sums[t], 0.0, False, attn_mask=part
                )  # 0.0, False: no dropout, not causal within the chunk
                grad_k[:, :, keys].add_(grads[1])
                grad_v[:, :, keys].add_(grads[2])
                of_chunk = grads[0].transpose(1, 2)
                grad_q[:, t] = of_chunk if a == start else grad_q[:, t] + of_chunk
        split = [x.transpose(1, 2).unflatten(1, (chunks, per_chunk)) for x in (grad_k, grad_v)]
        return grad_q, *split, None, None, None


def _additive(seen: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """0 where a key is seen, minus infinity elsewhere: what the kernel adds to the scores."""
    return None if seen is None else torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
