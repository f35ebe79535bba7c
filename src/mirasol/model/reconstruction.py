"""Modality reconstruction (P 3.3): the next chunk from h_t, by transformers of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig
from mirasol.model.layers import Block, projection
from mirasol.model.tubes import Lattice


class Reconstruction(nn.Module):
    """h_t and one token per piece of the next chunk go in, the values of the pieces come out."""

    positions: Tensor

    def __init__(self, config: ModelConfig, lattice: Lattice, whole: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        sizes = config.reconstruction_sizes
        t, h, w = lattice.shape
        self.lattice = lattice
        self.project = projection(config.latent_sizes.width, sizes.width)
        self.first = nn.Parameter(torch.zeros(sizes.width))
        self.blocks = nn.ModuleList(Block(sizes, config.dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.pixels = nn.Linear(sizes.width, channels * t * h * w)
        self.register_buffer("positions", lattice.positions(whole, sizes.width), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """h [S, m, d] -> pieces of the next chunk [S, pieces, values]."""
        tokens = (self.first + self.positions).expand(h.shape[0], -1, -1)
        x = torch.cat([self.project(h), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.pixels(self.norm(x[:, h.shape[1] :]))


class VideoReconstruction(Reconstruction):
    """p(v_{t+1} | h_t), the downsampled next chunk in tubes."""

    def __init__(self, config: ModelConfig) -> None:
        tube = config.reconstruction_tube
        whole = (config.frames_per_chunk, config.reconstruction_size, config.reconstruction_size)
        super().__init__(config, Lattice.within(tube, tube, whole), whole, channels=3)

    def target(self, small: Tensor) -> Tensor:
        """v_small [..., 3, K, size, size] cut into tubes [..., tubes, pixels]."""
        return self.lattice.cut(small)


class AudioReconstruction(Reconstruction):
    """p(a_{t+1} | h_t), the next chunk's log-mel in patches of the size that the audio branch reads."""

    def __init__(self, config: ModelConfig) -> None:
        patch = (1, *config.audio_patch)
        whole = (1, config.audio_columns, config.mels)
        super().__init__(config, Lattice.within(patch, patch, whole), whole, channels=1)

    def target(self, audio: Tensor) -> Tensor:
        """[S, A, M] cut into patches [S, patches, columns*mels]."""
        return self.lattice.cut(audio[:, None, None])
