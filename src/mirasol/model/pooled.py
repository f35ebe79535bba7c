"""Where combined features may start when nothing is pretrained (`queries: pooled`): not in the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirasol.model.config import ModelConfig


class PooledStart(nn.Module):
    """m learned vectors plus pooled features of the chunk: horizontal bands of its video, and all of its audio.

    The paper's backbones are pretrained. From scratch, this short way from the encoders to x decides whether
    sounds are learnt at all, and whether what is seen gets bound to what is heard.
    """

    pool: Tensor

    def __init__(self, config: ModelConfig, video_rows: Tensor, audio_tokens: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.combined, config.combiner_sizes.width))
        self.register_buffer("pool", pooling(video_rows, audio_tokens, config.combined), persistent=False)

    def start(self) -> None:
        """Tell the m features apart."""
        nn.init.normal_(self.queries, std=0.5)

    def forward(self, u: Tensor) -> Tensor:
        """u [..., n, d], zero where features are missing -> [..., m, d]."""
        return torch.einsum("mn,...nd->...md", self.pool, u) + self.queries


def pooling(video_rows: Tensor, audio_tokens: int, combined: int) -> Tensor:
    """Weights [m, n]: the mean of one of m horizontal bands of video features, plus the mean of audio features.

    A video token counts for the bands whose centre is less than one band's height away, the nearer the more; a
    band without tokens takes the mean of all.
    """
    centres = (torch.arange(combined, dtype=torch.float32) + 0.5) / combined
    near = (1.0 - (video_rows[None, :] - centres[:, None]).abs() * combined).clamp(min=0.0)
    near = torch.where(near.sum(dim=1, keepdim=True) > 0, near, torch.ones_like(near))
    audio = torch.full((combined, audio_tokens), 1.0 / audio_tokens)
    return torch.cat([near / near.sum(dim=1, keepdim=True), audio], dim=1)
