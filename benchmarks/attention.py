"""Chunk-causal attention on a CPU: the chunk loop against one dense-mask call, forward and backward.

    mirasol bench attention [--json FILE] [--rounds 7] [--quick]

Both compute equal outputs (tests/unit/model/attention/test_attention.py). Dense means torch's
scaled_dot_product_attention with the mask of eq. 8; torch picks its fused kernel for it. Exact block-causal work is
(T + 1) / 2T of the dense, 0.53 at T = 16, so the same kernel is at most 1.88 times faster. The time is
of the attention alone.

The memory is of a layer's attention as the model calls it, from the joint projection of queries, keys and values,
rotation included. Forward and backward must hold queries, keys, values, output and three gradients in both;
`beyond` is the rest. `unfused` is the dense call without torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import arguments, exact, in_turn, median_ms, peak_mib, ratio, report, rounded, spread, table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mirasol.model.attention.chunk_causal import chunk_causal_attention
from mirasol.model.layers import split_heads
from mirasol.model.positions import CHUNK_BASE, rotary_angles, rotate

Attention = Callable[..., Tensor]


def alone(attention: Attention, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> None:
    """Forward and backward of the attention."""
    torch.autograd.grad(attention(q, k, v), (q, k, v), grad)


def in_layer(attention: Attention, heads: int, projected: Tensor, grad: Tensor) -> None:
    """Forward and backward as in a block over chunks, from the projection [B, T, n, 3*heads*head]."""
    cos, sin = rotary_angles(torch.arange(projected.shape[1]), grad.shape[-1], CHUNK_BASE, projected.dtype)
    joint = projected * 1.0  # so that only the layer holds its projection
    q, k, v = (split_heads(x, heads) for x in joint.chunk(3, dim=-1))
    del joint
    q, k = (rotate(x, cos[:, None, None], sin[:, None, None]) for x in (q, k))
    mixed = attention(q, k, v)
    del q, k, v
    torch.autograd.grad(mixed, projected, grad)


def unfused(*tensors: Tensor, window: int) -> Tensor:
    """The dense mask without the fused kernel: the table of all scores is written down."""
    with sdpa_kernel(SDPBackend.MATH):
        return chunk_causal_attention(*tensors, window, backend="dense")


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__, rounds=7).parse_args()
    torch.set_num_threads(1)
    chunks, features, heads, head = (4, 32, 4, 32) if options.quick else (16, 128, 16, 64)
    draws = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, 1, chunks, features, generator=draws)
    q, k, v = (draw(heads, head).requires_grad_() for _ in range(3))
    projected, grad = draw(3 * heads * head).requires_grad_(), draw(heads, head)
    sides: dict[str, Attention] = {
        name: partial(chunk_causal_attention, window=chunks, backend=name) for name in ("loop", "dense")
    }
    taken = in_turn({name: partial(alone, side, q, k, v, grad) for name, side in sides.items()}, options.rounds)
    sides["unfused"] = partial(unfused, window=chunks)
    peak = {name: peak_mib(partial(in_layer, side, heads, projected, grad)) for name, side in sides.items()}
    least = 7 * grad.numel() * grad.element_size() / 2**20
    beyond = {name: value - least for name, value in peak.items()}
    ratios = {
        "chunk_attention_time": ratio(taken["dense"], taken["loop"]),
        "chunk_attention_memory": exact(peak["loop"] / peak["dense"]),
    }
    print(f"T = {chunks}, n = {features}, {heads} heads of {head}, one thread, forward and backward\n")
    rows: list[tuple[object, ...]] = [("", "loop", "dense", "unfused", "loop / dense")]
    times = [median_ms(taken[name]) for name in ("loop", "dense")]
    rows.append(("time, ms of processor", *times, "", spread(ratio(taken["loop"], taken["dense"]))))
    rows.append(("peak of a layer, MiB", *peak.values(), rounded(peak["loop"] / peak["dense"])))
    rows.append(("of it beyond, MiB", *map(rounded, beyond.values()), rounded(beyond["loop"] / beyond["dense"])))
    table(rows)
    figures = {
        "milliseconds": dict(zip(("loop", "dense"), times, strict=True)),
        "peak_mib": {name: rounded(value) for name, value in peak.items()},
        "beyond_mib": {name: rounded(value) for name, value in beyond.items()},
        "memory_over_unfused": rounded(peak["loop"] / peak["unfused"]),
        "sizes": {"chunks": chunks, "features": features, "heads": heads, "head": head},
    }
    report("attention", options.json, ratios, figures)


if __name__ == "__main__":
    main()
