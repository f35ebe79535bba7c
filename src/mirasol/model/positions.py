"""Positions that have no parameters: fixed sin/cos within a chunk, rotary between chunks.

Nothing here depends on T: 512 frames need no more parameters than 128, and a stream can run for hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK_BASE = 100.0  # slowest rotary angle of chunk indices: they stay small, so the angles may differ quickly
TOKEN_BASE = 10000.0  # the usual one, for text


def lattice_positions(centres: Tensor, counts: Sequence[int], width: int) -> Tensor:
    """Fixed sin/cos embedding [n, width] of tokens at ``centres`` [n, axes], fractions of the whole in 0..1.

    Every axis along which tokens differ (``counts``, positions along each axis) gets an equal share of the width, in
    waves from a quarter of a cycle to half a cycle per token. The mean over tokens is subtracted: with it, and with
    the slow waves of text positions, most of the embedding is the same for all tokens, and a small model learns
    positions very late (docs/decisions/0007).
    """
    axes = [(axis, n) for axis, n in zip(centres.float().unbind(dim=1), counts, strict=True) if n > 1]
    if not axes:
        return torch.zeros(centres.shape[0], width)
    pairs = width // (2 * len(axes))
    parts = []
    for axis, n in axes:
        angles = axis[:, None] * math.pi * torch.linspace(0.5, max(6.0, float(n)), pairs)
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=-1)
    return torch.nn.functional.pad(table - table.mean(dim=0), (0, width - table.shape[1]))


def sincos(coordinates: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed sin/cos embedding [n, width] of ``coordinates`` [n, axes]; each axis gets an equal share of the width."""
    axes = coordinates.shape[1]
    pairs = width // (2 * axes)
    rates = 100.0 ** (-torch.arange(pairs, device=coordinates.device, dtype=dtype) / max(pairs, 1))
    angles = coordinates.to(dtype)[:, :, None] * rates  # [n, axes, pairs]
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))


def rotary_angles(positions: Tensor, head: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [..., head/2] of the rotary angles of ``positions`` [...]."""
    rates = base ** (-torch.arange(head // 2, device=positions.device, dtype=torch.float64) / (head // 2))
    angles = positions.to(torch.float64)[..., None] * rates
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of the last axis of ``x`` [..., head] against each other.

    The dot product of two rotated vectors depends on the difference of their positions only. Under autocast the angles
    are more precise than ``x``; the result has the type of ``x``, as the values do.
    """
    a, b = x.chunk(2, dim=-1)
    swapped = torch.cat([b, a], dim=-1)
    return torch.addcmul(x * torch.cat([cos, cos], dim=-1), swapped, torch.cat([-sin, sin], dim=-1)).to(x.dtype)
