"""Planar YUV 4:2:0 frames, the output of decoders, to numbers: on the device and inside the graph.

Converting to RGB on the host costs more than decoding H.264. Here it costs nothing: with chroma repeated to the size
of luma, RGB is a linear function of the planes, and tubes and block means are linear too, so that the conversion is
folded into the weights of :mod:`mirasol.model.tubes`. Those weights stay weights of normalised RGB pixels, as in
public checkpoints. Colours outside of the RGB cube, which codecs produce by rounding, are not clamped.
"""

from __future__ import annotations

import torch
from torch import Tensor

# BT.601, limited range: Y is 16..235, U and V are 16..240 around 128; RGB in -1..1, (value / 255 - 0.5) / 0.5.
# Plain numbers: a tensor of them would be copied from the host in every forward pass.
LUMA = 2.0 / 219.0
RED_V = 1.402 * 2.0 / 224.0
GREEN_U, GREEN_V = -0.344136 * 2.0 / 224.0, -0.714136 * 2.0 / 224.0
BLUE_U = 1.772 * 2.0 / 224.0


def planes(video: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """uint8 [..., K, H*3/2, W] -> luma [..., 1, K, H, W] and chroma [..., 2, K, H/2, W/2].

    A pixel's normalised RGB is its luma plus :func:`colour` of its chroma.

    Raises:
        ValueError: not uint8, or a shape that is not planar YUV 4:2:0.
    """
    luma, chroma = _split(video, dtype)
    return (luma - 16.0) * LUMA - 1.0, chroma - 128.0


def colour(chroma: Tensor) -> Tensor:
    """U and V [..., 2, K, H, W] as their shares in R, G and B [..., 3, K, H, W]."""
    u, v = chroma.unbind(-4)
    return torch.stack([v * RED_V, u * GREEN_U + v * GREEN_V, u * BLUE_U], dim=-4)


def downsample(video: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """v_small (P 3.3): normalised RGB averaged over blocks, uint8 [..., K, H*3/2, W] -> [..., 3, K, size, size].

    Raises:
        ValueError: not planar YUV 4:2:0, or ``size`` does not divide half the side of the frames.
    """
    luma, chroma = (_block_mean(plane, size) for plane in _split(video, dtype))
    return (luma - 16.0) * LUMA - 1.0 + colour(chroma - 128.0)


def _split(video: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The values of Y [..., 1, K, H, W] and of U and V [..., 2, K, H/2, W/2]."""
    rows, width = video.shape[-2:]
    if video.dtype != torch.uint8:
        raise ValueError(f"video is {video.dtype}, expected torch.uint8 (planar YUV 4:2:0)")
    if rows % 6 or width % 2:
        raise ValueError(f"frames of {rows} rows of {width}: planar YUV 4:2:0 has H*3/2 rows, H a multiple of 4")
    height = rows * 2 // 3
    values = video.to(dtype)
    luma, chroma = values[..., :height, :], values[..., height:, :]
    # All of U, then all of V; a row of the frame holds two rows of chroma.
    chroma = chroma.unflatten(-2, (2, height // 4)).flatten(-2).unflatten(-1, (height // 2, width // 2))
    return luma.unsqueeze(-4), chroma.transpose(-4, -3)


def _block_mean(plane: Tensor, size: int) -> Tensor:
    *lead, height, width = plane.shape
    if height % size or width % size:
        raise ValueError(f"blocks of {height}x{width} planes cannot make {size}x{size} pixels")
    rows = plane.reshape(*lead, size, height // size, width).sum(dim=-2)  # long rows first: several times faster
    return rows.reshape(*lead, size, size, width // size).sum(dim=-1) * (size * size / (height * width))
