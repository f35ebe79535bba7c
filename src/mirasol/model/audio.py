"""The audio branch (P 3.1): own projection, own positions, own blocks; then the ViT that video uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig
from mirasol.model.layers import Block
from mirasol.model.positions import lattice_positions


def audio_grid(config: ModelConfig) -> tuple[int, int]:
    """How many patches a chunk's spectrogram holds, in time and in mels.

    Raises:
        ValueError: a patch is larger than the chunk.
    """
    columns, mels = config.audio_patch
    if columns > config.seen_columns or mels > config.mels:
        raise ValueError(
            f"audio patch of {columns} columns x {mels} mels is larger than a chunk's "
            f"{config.seen_columns} x {config.mels}"
        )
    return config.seen_columns // columns, config.mels // mels


class Audio(nn.Module):
    """Log-mel columns [B, T, A, M] -> tokens [B, T, s, d], ready for the shared ViT.

    The audio phase trains these weights while the rest is frozen (S 4): the own blocks come first, so that they learn
    to produce inputs that suit the frozen ViT.
    """

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        columns, mels = self.patch = config.audio_patch
        self.grid = audio_grid(config)
        self.project = nn.Linear(columns * mels, config.vit.width)
        self.blocks = nn.ModuleList(Block(config.vit, config.dropout) for _ in range(config.audio_layers))
        extents = torch.tensor(self.patch) / torch.tensor([config.seen_columns, config.mels])
        axes = ((torch.arange(n) + 0.5) * extent for n, extent in zip(self.grid, extents, strict=True))
        table = lattice_positions(torch.cartesian_prod(*axes), extents, config.vit.width)
        self.register_buffer("positions", table, persistent=False)

    @property
    def tokens(self) -> int:
        """s, audio tokens per chunk."""
        return self.grid[0] * self.grid[1]

    def forward(self, audio: Tensor) -> Tensor:
        """[B, T, A, M] -> [B, T, s, d]."""
        (columns, mels), (rows, bands) = self.patch, self.grid
        x = audio[..., : rows * columns, : bands * mels].unflatten(-1, (bands, mels)).unflatten(-3, (rows, columns))
        x = x.transpose(-3, -2).flatten(-2).flatten(-3, -2)  # [B, T, s, columns*mels]
        x = (self.project(x) + self.positions).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return x.unflatten(0, audio.shape[:2])
