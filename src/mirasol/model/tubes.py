"""Sparse 3D tubes and 2D patches of a chunk (P 3.1, [35] of the paper): one linear map per shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.config import ModelConfig
from mirasol.model.motion import Motion
from mirasol.model.positions import lattice_positions
from mirasol.model.yuv import BLUE_U, GREEN_U, GREEN_V, RED_V, planes

LOOKS, SHOWN = 0.3, 0.5  # with `motion`: scale of the tubes' tokens, and share of training clips that have them

Extent = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True)
class Lattice:
    """Tubes of one shape that start every ``stride``, from the first pixel of the chunk: no offsets (P 3.1)."""

    shape: Extent
    stride: Extent
    counts: Extent  # tokens along time, height, width

    @classmethod
    def within(cls, shape: Extent, stride: Extent, whole: Extent) -> Lattice:
        """As many tubes as fit into ``whole``, the frames, height and width of a chunk.

        Raises:
            ValueError: a tube is longer than the chunk or larger than the frame, or tubes overlap.
        """
        name = "x".join(map(str, shape))
        if shape[0] > whole[0]:
            raise ValueError(f"tube {name} is {shape[0]} frames long, a chunk has {whole[0]}")
        if shape[1] > whole[1] or shape[2] > whole[2]:
            raise ValueError(f"tube {name} is larger than the {whole[1]}x{whole[2]} frame")
        if any(s < e for s, e in zip(stride, shape, strict=True)):
            raise ValueError(f"tube {name} with strides {stride}: tubes overlap, expected strides of at least the tube")
        t, h, w = ((n - e) // s + 1 for n, e, s in zip(whole, shape, stride, strict=True))
        return cls(shape, stride, (t, h, w))

    @property
    def tokens(self) -> int:
        """Number of tubes."""
        return self.counts[0] * self.counts[1] * self.counts[2]

    def halved(self) -> Lattice:
        """The same tubes on the planes of chroma.

        Raises:
            ValueError: a height, width or stride is odd.
        """
        (t, h, w), (st, sh, sw) = self.shape, self.stride
        if h % 2 or w % 2 or sh % 2 or sw % 2:
            raise ValueError(f"tube {t}x{h}x{w} with strides {self.stride}: expected even heights and widths (4:2:0)")
        return Lattice((t, h // 2, w // 2), (st, sh // 2, sw // 2), self.counts)

    def centres(self, whole: Extent) -> Tensor:
        """[tokens, 3]: time, height, width as fractions of the chunk."""
        spec = zip(self.counts, self.stride, self.shape, whole, strict=True)
        return torch.cartesian_prod(*((torch.arange(n) * s + e / 2) / w for n, s, e, w in spec))

    def positions(self, whole: Extent, width: int) -> Tensor:
        """[tokens, width], fixed: see :func:`mirasol.model.positions.lattice_positions`."""
        return lattice_positions(self.centres(whole), torch.tensor(self.shape) / torch.tensor(whole), width)

    def cut(self, x: Tensor) -> Tensor:
        """[..., c, K, H, W] -> [..., tokens, c*frames*height*width]: the columns of a strided convolution.

        With a linear map behind it this is the convolution, at a fraction of its time on a CPU.
        """
        need = [n * s for n, s in zip(self.counts, self.stride, strict=True)]
        missing = [max(0, n - have) for n, have in zip(need, x.shape[-3:], strict=True)]
        if any(missing):  # behind the last tube its stride may not be complete
            x = F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
        *lead, channels = x.shape[:-3]  # sizes are named: a batch without elements does not define them
        x = x[..., : need[0], : need[1], : need[2]].reshape(math.prod(lead), channels, *need)
        (nt, nh, nw), (st, sh, sw), (t, h, w) = self.counts, self.stride, self.shape
        x = x.reshape(math.prod(lead), channels, nt, st, nh, sh, nw, sw)  # 8 dimensions: TensorRT takes no more
        x = x[..., :t, :, :h, :, :w].permute(0, 2, 4, 6, 1, 3, 5, 7)
        return x.reshape(*lead, nt * nh * nw, channels * t * h * w)


def chunk_lattices(config: ModelConfig) -> list[Lattice]:
    """The tubes of each shape that a chunk is cut into, then the 2D patches of the first frame that it sees.

    Raises:
        ValueError: a tube or patch does not fit the chunk, or tubes overlap.
    """
    frames, size, side = config.seen_frames, config.size, config.patch
    whole = (frames, size, size)
    lattices = [Lattice.within(*pair, whole) for pair in zip(config.tubes, config.tube_strides, strict=True)]
    patches = [Lattice.within((1, side, side), (frames, side, side), whole)] if side else []
    return lattices + patches


class VideoTubes(nn.Module):
    """uint8 YUV [B, T, K, H*3/2, W] -> tokens [B, T, f, d]: cut into tubes, project, add positions."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        whole = (config.seen_frames, config.size, config.size)
        self.lattices = chunk_lattices(config)
        projections = []
        for lattice in self.lattices:
            lattice.halved()  # refuse odd ones here
            t, h, w = lattice.shape
            projections.append(nn.Linear(3 * t * h * w, config.vit.width))  # weights of RGB pixels, [d, 3*t*h*w]
        self.projections: Any = nn.ModuleList(projections)
        (_, *cells), cell = self.lattices[0].counts, self.lattices[0].stride[1]
        self.motion = Motion(config.size, (cells[0], cells[1]), cell, config.vit.width) if config.motion else None
        centres = torch.cat([lattice.centres(whole) for lattice in self.lattices])
        self.token_positions = centres[:, 1:]  # [f, 2], row and column of each centre as fractions of the frame
        table = torch.cat([lattice.positions(whole, config.vit.width) for lattice in self.lattices])
        self.register_buffer("positions", table, persistent=False)

    @property
    def tokens(self) -> int:
        """f, video tokens per chunk."""
        return sum(lattice.tokens for lattice in self.lattices)

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, K, H*3/2, W] -> [B, T, f, d]."""
        luma, chroma = planes(video, self.positions.dtype)
        parts = []
        for lattice, project in zip(self.lattices, self.projections, strict=True):
            columns = torch.cat([lattice.cut(luma), lattice.halved().cut(chroma)], dim=-1)
            parts.append(F.linear(columns, fold(project.weight, lattice.shape), project.bias))
        if self.motion is not None:
            if self.training:  # few clips are learnt by heart from their looks: half of the time motion must do
                shown = torch.rand(len(video), 1, 1, 1, device=luma.device) < SHOWN
                parts = [part * shown for part in parts]
            # the tubes of a cell, one behind the other in time, share its motion
            parts[0] = LOOKS * parts[0] + self.motion(video).repeat(1, 1, self.lattices[0].counts[0], 1)
        return torch.cat(parts, dim=-2) + self.positions


def fold(weight: Tensor, shape: Extent) -> Tensor:
    """Weights of RGB pixels [d, 3*t*h*w] as the equal weights of luma and chroma [d, t*h*w + 2*t*h/2*w/2].

    Half the columns, and no RGB picture. Every chroma sample covers 2x2 pixels.
    """
    t, h, w = shape
    rgb = weight.view(-1, 3, t * h * w)
    red, green, blue = rgb.unbind(1)
    pixels = torch.stack([green * GREEN_U + blue * BLUE_U, red * RED_V + green * GREEN_V], dim=1)
    left, right = pixels.view(-1, 2, t, h // 2, 2, w // 2, 2).unbind(-1)  # a sum over two axes is three times slower
    upper, lower = (left + right).unbind(-2)
    return torch.cat([rgb.sum(dim=1), (upper + lower).flatten(1)], dim=1)
