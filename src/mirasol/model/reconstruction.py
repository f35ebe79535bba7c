"""Video reconstruction (P 3.3): the downsampled next chunk from h_t, by a transformer of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection
from mirasol.model.positions import lattice_positions
from mirasol.model.tubes import Lattice
from mirasol.model.vit import Block


class VideoReconstruction(nn.Module):
    """h_t and one token per tube of v_small go in, the pixels of the tubes come out: p(v_{t+1} | h_t)."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = config.reconstruction_sizes
        tube = config.reconstruction_tube
        whole = (config.frames_per_chunk, config.reconstruction_size, config.reconstruction_size)
        self.lattice = Lattice.within(tube, tube, whole)
        self.project = projection(config.latent_sizes.width, sizes.width)
        self.first = nn.Parameter(torch.zeros(sizes.width))
        self.blocks = nn.ModuleList(Block(sizes, config.dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.pixels = nn.Linear(sizes.width, 3 * tube[0] * tube[1] * tube[2])
        table = lattice_positions(self.lattice.centres(whole), self.lattice.counts, sizes.width)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """h [S, m, d] -> tubes of the next chunk's v_small [S, tubes, pixels]."""
        tokens = (self.first + self.positions).expand(h.shape[0], -1, -1)
        x = torch.cat([self.project(h), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.pixels(self.norm(x[:, h.shape[1] :]))

    def target(self, small: Tensor) -> Tensor:
        """v_small [..., 3, K, size, size] cut into tubes [..., tubes, pixels]."""
        return self.lattice.cut(small)
