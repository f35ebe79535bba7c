"""Motion without the camera's: how much of each cell of the frame changed within a chunk. Not in the paper.

A small model that starts at random does not learn from a few hundred clips to compare frames that a hand-held camera
shifts. So the shift is taken out by whole pixels, and each cell's token also gets the differences that are left.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.yuv import LUMA

COARSE = (4, 2, 1)  # pixels to a side of what is compared: the shift is found at the first size, then refined
REACH = 0.2  # of the frame, the largest shift that is looked for
GROUPS = 4  # stretches of a chunk that are averaged against noise
POOL, BLUR = 2, 6  # pixels
GRID = 2  # rows and columns of a cell that have separate numbers
TOP = 4  # cells with most motion whose mean is a number of the whole frame
FLOOR, OFFSET = 0.01, 3.0  # of the logarithms, in units of normalised luma


class Motion(nn.Module):
    """uint8 YUV [B, T, K, H*3/2, W] -> [B, T, cells, d], to be added to the tokens of ``rows`` x ``columns`` cells."""

    def __init__(self, side: int, cells: tuple[int, int], cell: int, width: int) -> None:
        super().__init__()
        if cell % (POOL * GRID):
            raise ValueError(f"cells of {cell} pixels, expected a multiple of {POOL * GRID}")
        self.side, self.cells, self.cell = side, cells, cell
        self.reach = max(1, round(REACH * side / COARSE[0]))  # in pixels of the first size
        self.project = nn.Linear(3 * (2 + GRID * GRID) + GRID * GRID + 3 * 3 + 2, width)

    def forward(self, video: Tensor) -> Tensor:
        """[B, T, K, H*3/2, W] -> [B, T, cells, d]."""
        luma = video[..., : self.side, :].flatten(0, 1).to(torch.float32)  # [N, K, H, W]
        shifts = self.shifts(luma)
        local, shared = self.maps(*steadied(luma, shifts))
        steps = (shifts[:, 1:] - shifts[:, :-1]).abs().sum(-1).to(torch.float32) / (self.reach * COARSE[0])
        shared = torch.cat([shared, steps.mean(1, keepdim=True), steps.amax(1, keepdim=True)], -1)
        found = torch.cat([local, shared[:, None].expand(-1, local.shape[1], -1)], -1)
        moved: Tensor = self.project(found.to(self.project.weight.dtype))
        return moved.unflatten(0, video.shape[:2])

    def shifts(self, luma: Tensor) -> Tensor:
        """Whole pixels (down, right) [N, K, 2] that the picture of each frame lies off that of the middle frame.

        Luma is compared less its mean over the frame, in sums of integers: the same on every machine.
        """
        found = torch.zeros(*luma.shape[:2], 2, dtype=torch.int64, device=luma.device)
        for pixels in COARSE:
            small = luma.unflatten(3, (-1, pixels)).sum(4).unflatten(2, (-1, pixels)).sum(3)
            # the half keeps the quotient off whole numbers, where a backend's last bit would decide
            small = small - ((small.sum((2, 3), keepdim=True) + 0.5) / small[0, 0].numel()).floor()
            first = pixels == COARSE[0]
            moved = small if first else steadied(small, found // pixels)[0]
            reach = self.reach if first else 1
            margin = self.reach * COARSE[0] // pixels + (0 if first else 1)
            found = found + pixels * offsets(moved, reach, margin)
        return found

    def maps(self, steady: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of each cell [N, cells, F] and of the whole frame [N, G]; ``steady`` [N, K, H, W], K from 2.

        Three maps of absolute change: from the first to the last stretch of the chunk, the largest between
        neighbouring stretches, the mean between frames. ``seen`` [N, 1, H, W] is 0 where a frame has no pixel.
        """
        frames = steady.shape[1]
        count = min(GROUPS, frames)
        ends = [i * frames // count for i in range(count + 1)]
        stretches = torch.stack([steady[:, a:b].mean(1) for a, b in itertools.pairwise(ends)], 1)
        late = self.blurred(stretches[:, -1:] - stretches[:, :1], seen)
        near = self.blurred(stretches[:, 1:] - stretches[:, :-1], seen).abs().amax(1, keepdim=True)
        fast = self.blurred((steady[:, 1:] - steady[:, :-1]).abs().mean(1, keepdim=True), seen)
        local, shared = [self.blocks(late).mean((-1, -2))], []
        for change in (late.abs(), near, fast):
            blocks = self.blocks(change)
            means = blocks.mean((-1, -2))
            cell = torch.log(blocks.amax((-1, -2, -3)) + FLOOR) + OFFSET  # [N, cells]
            local += [torch.log(means + FLOOR) + OFFSET, cell[..., None]]
            local.append(torch.log(means.mean(-1, keepdim=True) + FLOOR) + OFFSET)
            shared += [cell.amax(1), cell.mean(1), cell.topk(min(TOP, cell.shape[1]), dim=1).values.mean(1)]
        return torch.cat(local, -1), torch.stack(shared, -1)

    def blurred(self, change: Tensor, seen: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H/2, W/2] in units of normalised luma."""
        return F.avg_pool2d(change * seen * LUMA, BLUR, POOL, (BLUR - POOL) // 2)

    def blocks(self, change: Tensor) -> Tensor:
        """[N, 1, H/2, W/2] -> [N, cells, GRID * GRID, b, b]."""
        (rows, columns), side = self.cells, self.cell // POOL
        block = side // GRID
        cut = change[:, 0, : rows * side, : columns * side].reshape(-1, rows, GRID, block, columns, GRID, block)
        return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, rows * columns, GRID * GRID, block, block)


def offsets(frames: Tensor, reach: int, margin: int) -> Tensor:
    """Shift [N, K, 2] of at most ``reach`` pixels at which the inside of each frame is most like the middle frame's.

    Frames [N, K, H, W] of integers; their ``margin`` is left out. Among equals the smallest shift.
    """
    length, steps = frames.shape[-1] - 2 * margin, torch.arange(-reach, reach + 1, device=frames.device)
    window = margin + steps[:, None] + torch.arange(length, device=frames.device)  # [2 * reach + 1, length]
    across = frames[..., window]  # [N, K, H, 2 * reach + 1, length]
    inside = frames[:, frames.shape[1] // 2, None, margin : margin + length, None, margin : margin + length]
    rows = range(margin - reach, margin + reach + 1)  # one by one: all of them at once leave the processor's cache
    unlike = torch.stack([(across[:, :, row : row + length] - inside).abs().sum((2, 4)) for row in rows], 2)
    unlike = unlike + (steps[:, None].square() + steps.square())
    best = unlike.flatten(2).argmin(-1)
    return torch.stack([best // len(steps), best % len(steps)], -1) - reach


def steadied(frames: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """Frames [N, K, H, W] moved back by ``shifts``, and where all of them have a pixel, [N, 1, H, W] of 0, 1."""
    (height, width), kind = frames.shape[-2:], frames.dtype
    rows = torch.arange(height, device=frames.device) + shifts[..., :1]
    columns = torch.arange(width, device=frames.device) + shifts[..., 1:]
    inside = ((rows >= 0) & (rows < height)).all(1)[:, :, None] & ((columns >= 0) & (columns < width)).all(1)[:, None]
    moved = frames.gather(2, rows.clamp(0, height - 1)[..., None].expand_as(frames))
    moved = moved.gather(3, columns.clamp(0, width - 1)[..., None, :].expand_as(frames))
    return moved, inside[:, None].to(kind)
