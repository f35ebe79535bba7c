"""Kernels of patches and tubes in another size: one rule for pixels and for frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resample(kernel: Tensor, extent: tuple[int, ...]) -> Tensor:
    """``kernel`` [d, c, *sizes] for patches of ``extent``, as many axes as ``sizes`` has.

    A patch that is resized, B x, should give the token that x gave: w' with <B x, w'> = <x, w> in the least squares
    sense, which is the pseudo-inverse of B transposed times w (FlexiViT, Beyer et al. 2023, section 3.4). Enlarging
    is exact for every x. Along time the same rule gives inflation: from 1 frame to t each gets 1/t of the weights,
    so that a still picture gives the token of the picture.
    """
    resampled = kernel.double()
    for axis, size in enumerate(extent, start=2):
        if size != kernel.shape[axis]:
            matrix = torch.linalg.pinv(resize_matrix(kernel.shape[axis], size).T)  # [size, before]
            resampled = torch.tensordot(resampled, matrix, dims=([axis], [1])).movedim(-1, axis)
    return resampled.to(kernel.dtype).contiguous()


def resize_matrix(have: int, want: int) -> Tensor:
    """B [want, have], float64: a row of ``have`` pixels resized to ``want``, bicubic, smoothed where it shrinks."""
    lit = torch.eye(have, dtype=torch.float64)[None, None]  # column i is a row of pixels whose pixel i is lit
    return F.interpolate(lit, size=(want, have), mode="bicubic", antialias=True)[0, 0]
