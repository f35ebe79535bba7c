"""The Token Turing Machine combiner (P 3.2, eqs. 3-6, figure 4 right): constant work and memory per chunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.chunk_transformer import StreamState
from mirasol.model.combiners.pooled import PooledStart
from mirasol.model.config import ModelConfig
from mirasol.model.layers import projection
from mirasol.model.vit import Block

BOTTLENECK = 64  # hidden width of TokenLearner's MLP


class TokenLearner(nn.Module):
    """Attention pooling: each output is a mean of the tokens, weighted by an MLP that reads each token."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, BOTTLENECK)
        self.weigh = nn.Linear(BOTTLENECK, outputs)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """[B, n, d] -> [B, outputs, d]; ``valid`` bool [B, n], at least one in a row."""
        scores = self.weigh(F.gelu(self.hidden(self.norm(tokens)))).transpose(1, 2)  # [B, outputs, n]
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None], float("-inf"))
        return scores.softmax(dim=-1) @ tokens

    def start(self) -> None:
        """Start with scores of about unit variance: nearly equal ones would make all outputs the same mean."""
        nn.init.normal_(self.weigh.weight, std=2 * self.weigh.in_features**-0.5)  # gelu halves the variance


class TTMCombiner(nn.Module):
    """Read, process, write, output. The memory is zero before the first chunk.

    With ``queries: pooled``, the output is added to pooled features of the chunk.
    """

    def __init__(self, config: ModelConfig, video_places: Tensor, audio_tokens: int) -> None:
        super().__init__()
        width = config.combiner_sizes.width
        if config.ttm_sizes.width != width:
            raise ValueError(f"ttm_sizes.width is {config.ttm_sizes.width}, combiner_sizes.width {width}: they are one")
        self.memory = (config.ttm_memory, width)
        self.project = projection(config.vit.width, width)
        self.read = TokenLearner(width, config.ttm_read)
        self.process = nn.ModuleList(Block(config.ttm_sizes, config.dropout) for _ in range(config.ttm_sizes.layers))
        self.write = TokenLearner(width, config.ttm_memory)
        self.output = TokenLearner(width, config.combined)
        self.norm = nn.LayerNorm(width)
        self.pooled = PooledStart(config, video_places, audio_tokens) if config.queries == "pooled" else None

    def forward(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, n, d] -> [B, T, m, d]."""
        memory = u.new_zeros(u.shape[0], *self.memory)
        u = self.project(u)
        outputs = []
        for t in range(u.shape[1]):
            x, memory = self._turn(u[:, t], None if valid is None else valid[:, t], memory)
            outputs.append(x)
        return torch.stack(outputs, dim=1)

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """``memory`` [B, memory, d]."""
        return {"memory": torch.zeros(batch, *self.memory, device=device, dtype=dtype)}

    def step(self, u: Tensor, valid: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """[B, n, d] -> [B, m, d]."""
        x, memory = self._turn(self.project(u), valid, state["memory"])
        return x, {"memory": memory}

    def _turn(self, u: Tensor, valid: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 3 to 6 for one chunk: u [B, n, d], memory M_t -> x_t, M_{t+1}."""
        read_valid = write_valid = None
        if valid is not None:
            u = torch.where(valid[..., None], u, 0.0)
            read_valid = _prepend_valid(valid, memory.shape[1])
            write_valid = _prepend_valid(valid, memory.shape[1] + self.read.weigh.out_features)
        z = self.read(torch.cat([memory, u], dim=1), read_valid)  # eq. 3
        o = z
        for block in self.process:  # eq. 4
            o = block(o)
        written = self.write(torch.cat([memory, o, u], dim=1), write_valid)  # eq. 5
        if valid is not None:  # a chunk that holds nothing leaves the memory alone
            written = torch.where(valid.any(dim=1)[:, None, None], written, memory)
        x = self.output(o, None)  # eq. 6
        return self.norm(x if self.pooled is None else x + self.pooled(u)), written


def _prepend_valid(valid: Tensor, count: int) -> Tensor:
    """``count`` valid tokens before those of ``valid`` [B, n]."""
    return torch.cat([torch.ones_like(valid[:, :1]).expand(-1, count), valid], dim=1)
