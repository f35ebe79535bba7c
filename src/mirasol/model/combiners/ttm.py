"""The Token Turing Machine combiner (P 3.2, eqs. 3-6, figure 4 right): constant work and memory per chunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.chunk_transformer import Streamed, StreamState
from mirasol.model.combiners.pooled import PooledStart
from mirasol.model.config import ModelConfig
from mirasol.model.layers import Block, projection

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

    Process is a transformer encoder as in the published reference, with learned positions and a final norm; without
    ``ModelConfig.ttm_encoder``, as in weights saved before it, the blocks alone (docs/decisions/0069). With
    ``queries: pooled``, the output is added to pooled features of the chunk.
    """

    def __init__(self, config: ModelConfig, video_positions: Tensor, audio_tokens: int) -> None:
        super().__init__()
        width = config.combiner_sizes.width
        if config.ttm_sizes.width != width:
            raise ValueError(f"ttm_sizes.width is {config.ttm_sizes.width}, combiner_sizes.width {width}: they are one")
        self.memory = (config.ttm_memory, width)
        self.project = projection(config.vit.width, width)
        self.read = TokenLearner(width, config.ttm_read)
        self.process = nn.ModuleList(Block(config.ttm_sizes, config.dropout) for _ in range(config.ttm_sizes.layers))
        self.process_positions = nn.Parameter(torch.empty(config.ttm_read, width)) if config.ttm_encoder else None
        self.process_norm = nn.LayerNorm(width, eps=config.ttm_sizes.eps) if config.ttm_encoder else None
        self.write = TokenLearner(width, config.ttm_memory)
        self.output = TokenLearner(width, config.num_queries)
        self.norm = nn.LayerNorm(width)
        self.pooled = PooledStart(config, video_positions, audio_tokens) if config.queries == "pooled" else None

    def forward(self, u: Tensor, valid: Tensor | None, state: StreamState | None = None) -> Streamed:
        """[B, T, n, d] -> [B, T, m, d]."""
        memory = u.new_zeros(u.shape[0], *self.memory) if state is None else state["memory"]
        u, outputs = self.project(u), []
        if valid is not None:
            u = torch.where(valid[..., None], u, 0.0)
        for t, chunk in enumerate(u.unbind(1)):
            seen = None if valid is None else valid[:, t]
            o = self._processed(self.read(torch.cat([memory, chunk], dim=1), _prepend_valid(seen, memory)))  # eq. 3
            x = self.output(o, None)  # eq. 6
            outputs.append(self.norm(x if self.pooled is None else x + self.pooled(chunk)))
            if state is not None or t < u.shape[1] - 1:  # nothing reads the memory behind a clip
                memory = self._written(chunk, seen, memory, o)
        return torch.stack(outputs, dim=1), {} if state is None else {"memory": memory}

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """``memory`` [B, memory, d]."""
        return {"memory": torch.zeros(batch, *self.memory, device=device, dtype=dtype)}

    def start(self) -> None:
        """Positions as in the reference: next to nothing, since Read tells its outputs apart by itself."""
        if self.process_positions is not None:
            nn.init.normal_(self.process_positions, std=0.02)

    def _processed(self, z: Tensor) -> Tensor:
        """o [B, read, d] of the tokens z that were read (eq. 4)."""
        o = z if self.process_positions is None else z + self.process_positions
        for block in self.process:
            o = block(o)
        return o if self.process_norm is None else self.process_norm(o)

    def _written(self, u: Tensor, valid: Tensor | None, memory: Tensor, o: Tensor) -> Tensor:
        """M_{t+1} of a chunk's features u [B, n, d], the memory M_t and the processed tokens o (eq. 5)."""
        written: Tensor = self.write(torch.cat([memory, o, u], dim=1), _prepend_valid(valid, memory, o))
        if valid is None:
            return written
        return torch.where(valid.any(dim=1)[:, None, None], written, memory)  # an empty chunk does not change it


def _prepend_valid(valid: Tensor | None, *before: Tensor) -> Tensor | None:
    """``valid`` [B, n] of a chunk's features with those of the tokens ``before`` them, all valid; ``None`` for all."""
    if valid is None:
        return None
    count = sum(tokens.shape[1] for tokens in before)
    return torch.cat([torch.ones_like(valid[:, :1]).expand(-1, count), valid], dim=1)
