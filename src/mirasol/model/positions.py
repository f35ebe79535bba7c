"""Positions that have no parameters: fixed sin/cos within a chunk, rotary between chunks.

Nothing here depends on T: 512 frames need no more parameters than 128, and a stream can run for hours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK_BASE = 100.0  # slowest rotary angle of chunk indices: they stay small, so the angles may differ quickly
TOKEN_BASE = 10000.0  # the usual one, for text
# Fast enough to tell the neighbours of a 28 x 28 grid apart (cosine 0.97), slow enough that the token nearest to one of
# a 6 x 6 grid on a 12 x 12 grid, half a token away on both axes, has cosine 0.9 (docs/decisions/0065)
TOP = 5.0


def lattice_positions(centres: Tensor, extents: Tensor, width: int) -> Tensor:
    """Fixed sin/cos embedding [n, width] of tokens: boxes at ``centres`` [n, axes] of ``extents`` [axes].

    Both are fractions of the whole. Each axis gets an equal share of the width, in waves from a quarter of a cycle to
    ``TOP`` half cycles over the whole: the number of tokens changes no wave, so a place keeps its embedding at any
    resolution. A token takes the mean of each wave over its box, minus that over the whole: it equals the mean of the
    finer tokens that tile its box, and an axis that a token spans adds nothing. Without the mean, most of the
    embedding would be the same for all tokens, and a small model learns positions very late (docs/decisions/0007).
    """
    pairs = width // (2 * centres.shape[1])
    rates = torch.linspace(0.5, TOP, pairs, dtype=torch.float64) / 2  # cycles over the whole
    parts = []
    for axis, extent in zip(centres.double().unbind(dim=1), extents.double(), strict=True):
        angles, middle = 2 * math.pi * axis[:, None] * rates, math.pi * rates
        shrunk, whole = torch.sinc(extent * rates), torch.sinc(rates)  # mean of a wave over a box, by its centre's
        parts += [angles.sin() * shrunk - middle.sin() * whole, angles.cos() * shrunk - middle.cos() * whole]
    table = math.sqrt(2) * torch.cat(parts, dim=-1).float()  # waves of variance 1
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))


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
