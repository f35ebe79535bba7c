"""The text model (P 3.4, eq. 9): a causal decoder with cross-attention to all of h."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.attention.chunk_causal import attend
from mirasol.model.chunk_transformer import StreamState
from mirasol.model.config import ModelConfig, Sizes
from mirasol.model.layers import MLP, split_heads
from mirasol.model.positions import TOKEN_BASE, rotary_angles, rotate, sincos

Pair = tuple[Tensor, Tensor]


class SelfAttention(nn.Module):
    """Pre-norm attention over the text so far, with rotary angles over the token index."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.qkv = nn.Linear(sizes.width, 3 * sizes.heads * sizes.head)
        self.out = nn.Linear(sizes.heads * sizes.head, sizes.width)
        self.dropout = nn.Dropout(dropout)

    def qkv_of(self, x: Tensor, angles: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, [S, L, heads, head], of x [S, L, w]."""
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(self.norm(x)).chunk(3, dim=-1))
        return rotate(q, *angles), rotate(k, *angles), v

    def add(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The residual stream [..., w] after attention [..., heads*head]."""
        return x + self.dropout(self.out(mixed))


class CrossAttention(nn.Module):
    """Pre-norm attention to the memory, all of h, with an MLP of its own behind it where ``hidden`` is not 0."""

    def __init__(self, sizes: Sizes, memory_width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        inner = sizes.heads * sizes.head
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.q = nn.Linear(sizes.width, inner)
        self.kv = nn.Linear(memory_width, 2 * inner)
        self.out = nn.Linear(inner, sizes.width)
        self.dropout = nn.Dropout(dropout)
        self.mlp = MLP(dataclasses.replace(sizes, hidden=hidden), dropout) if hidden else nn.Identity()

    def keys_values(self, memory: Tensor) -> Pair:
        """Of memory [B, R*m, d]: [B, R*m, heads, head] each; the same for every token that asks."""
        k, v = (split_heads(y, self.heads) for y in self.kv(memory).chunk(2, dim=-1))
        return k, v

    def forward(self, x: Tensor, keys_values: Pair, valid: Tensor | None) -> Tensor:
        """x [B, tokens, w]; ``valid`` bool [B, R*m] with at least one True in a row."""
        q = split_heads(self.q(self.norm(x)), self.heads)
        mask = None if valid is None else valid[:, None, None]
        return self.mlp(x + self.dropout(self.out(attend(q, *keys_values, mask).flatten(-2))))


class TextBlock(nn.Module):
    """Self-attention, cross-attention in every ``cross_every``-th layer, MLP."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        sizes, dropout = config.text, config.dropout
        self.self_attention = SelfAttention(sizes, dropout)
        self.cross_attention: CrossAttention | None = None
        if (layer + 1) % config.cross_every == 0:
            self.cross_attention = CrossAttention(sizes, config.latent_sizes.width, config.cross_hidden, dropout)
        self.mlp = MLP(sizes, dropout)

    def finish(self, x: Tensor, keys_values: Pair | None, valid: Tensor) -> Tensor:
        """What follows self-attention: x [B, tokens, w]; ``keys_values`` where the layer has cross-attention."""
        if self.cross_attention is not None and keys_values is not None:
            x = self.cross_attention(x, keys_values, valid)
        out: Tensor = self.mlp(x)
        return out


class TextDecoder(nn.Module):
    """Tokens and h in, the next token's logits out. The embedding is tied to the output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = config.text
        self.max_text = config.max_text
        self.max_chunks = config.max_chunks
        self.combined = config.combined
        self.embedding = nn.Embedding(config.vocabulary, config.text.width)
        if not 1 <= config.cross_every <= config.text.layers:
            raise ValueError(
                f"cross-attention in every {config.cross_every}th of {config.text.layers} text layers, "
                f"expected 1 to {config.text.layers}"
            )
        self.blocks: Any = nn.ModuleList(TextBlock(config, layer) for layer in range(config.text.layers))
        self.norm = nn.LayerNorm(config.text.width, eps=config.text.eps)
        # Which of the m features of a chunk one is: without it, "the one at the left" is learnt very late.
        self.memory_features = nn.Parameter(torch.empty(config.combined, config.latent_sizes.width))

    def start(self) -> None:
        """Tokens of unit norm, so that the tied head can be sure even while it is frozen; features told apart."""
        nn.init.normal_(self.embedding.weight, std=self.sizes.width**-0.5)
        nn.init.normal_(self.memory_features, std=0.7)

    def embed(self, tokens: Tensor) -> Tensor:
        """[...] -> [..., w]; scaled to unit variance, as large as what attention adds."""
        return self.embedding(tokens) * math.sqrt(self.sizes.width)

    def head(self, hidden: Tensor) -> Tensor:
        """[..., w] -> logits [..., V]."""
        return F.linear(self.norm(hidden), self.embedding.weight)

    def memory_of(self, h: Tensor, present: Tensor) -> Pair:
        """The last R chunks of h [B, T, m, d] as memory [B, R'*m, d] with its validity [B, R'*m]."""
        h, present = h[:, -self.max_chunks :], present[:, -self.max_chunks :]
        return h.flatten(1, 2), present.repeat_interleave(self.combined, dim=1)

    def forward(self, tokens: Tensor, memory: Tensor, valid: Tensor, picked: Tensor | None = None) -> Tensor:
        """Hidden states [B, Q, L, w] of tokens [B, Q, L]; memory and valid as from :meth:`memory_of`.

        ``picked`` int64 [B, S] are the tokens of a clip's Q texts, q*L + l, whose hidden states [B, S, w] are
        wanted: the last layer then computes no other.
        """
        return self.prefill(tokens, *self.cross_keys_values(memory, valid), picked)[0]

    def prefill(
        self, tokens: Tensor, keys_values: list[Pair | None], valid: Tensor, picked: Tensor | None = None
    ) -> tuple[Tensor, list[Pair]]:
        """Hidden states as :meth:`forward`, and each layer's self-attention keys and values [B*Q, L, heads, head].

        ``keys_values`` and ``valid`` as from :meth:`cross_keys_values`. Texts are padded on the right: being
        causal, they need no mask.

        Raises:
            ValueError: the texts are longer than the cache.
        """
        clips, texts, length = tokens.shape
        if length > self.max_text:
            raise ValueError(f"texts of {length} tokens, the text cache holds {self.max_text}")
        x = self.embed(tokens).flatten(1, 2)  # [B, Q*L, w]
        angles = self._token_angles(torch.arange(length, device=tokens.device), x.dtype)
        cache = []
        for layer, (block, pair) in enumerate(zip(self.blocks, keys_values, strict=True)):
            q, k, v = block.self_attention.qkv_of(x.view(clips * texts, length, -1), angles)
            mixed = attend(q, k, v, causal=True).reshape(clips, texts * length, -1)
            if picked is not None and layer == self.sizes.layers - 1:
                x, mixed = (y.gather(1, picked[..., None].expand(-1, -1, y.shape[-1])) for y in (x, mixed))
            x = block.self_attention.add(x, mixed)
            x = block.finish(x, pair, valid)
            cache.append((k, v))
        return (x if picked is not None else x.unflatten(1, (texts, length))), cache

    def branch(
        self,
        tokens: Tensor,
        places: Tensor,
        past: list[Pair],
        seen: Tensor,
        keys_values: list[Pair | None],
        valid: Tensor,
    ) -> tuple[Tensor, list[Pair]]:
        """C more tokens of each of Q texts per clip, which may continue it in different ways: a tree.

        Args:
            tokens: int64 [B, Q, C].
            places: int64 [B, Q, C], the index of each in its text.
            past: each layer's keys and values of the tokens before, [B*Q, P, heads, head].
            seen: bool [B*Q, C, P+C], which of the P tokens before and of these C a token looks at; itself among them.
            keys_values, valid: as from :meth:`cross_keys_values`.

        Returns:
            Hidden states [B, Q, C, w], and each layer's keys and values of these tokens, [B*Q, C, heads, head].
        """
        clips, texts, count = tokens.shape
        x = self.embed(tokens).flatten(1, 2)  # [B, Q*C, w]
        angles = self._token_angles(places.flatten(0, 1), x.dtype)
        own = []
        for block, (keys, values), pair in zip(self.blocks, past, keys_values, strict=True):
            q, k, v = block.self_attention.qkv_of(x.view(clips * texts, count, -1), angles)
            mixed = attend(q, torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1), seen[:, None])
            x = block.self_attention.add(x, mixed.reshape(clips, texts * count, -1))
            x = block.finish(x, pair, valid)
            own.append((k, v))
        return x.unflatten(1, (texts, count)), own

    def cross_keys_values(self, memory: Tensor, valid: Tensor) -> tuple[list[Pair | None], Tensor]:
        """Each layer's keys and values of the memory, and which of them may be seen; None without cross-attention.

        Fixed sin/cos of a chunk's age, counted back from the last chunk that holds something, is added to it:
        in the values too, so that an answer can say when. Where nothing is valid, everything may be seen (a
        softmax over nothing is not finite) and has the value zero. A learned vector says which of the m features
        of its chunk one is.
        """
        chunks = memory.shape[1] // self.combined
        present = valid.view(-1, chunks, self.combined).any(dim=-1)
        index = torch.arange(chunks, device=memory.device)
        last = torch.where(present, index, 0).amax(dim=1, keepdim=True)
        age = (last - index).abs()  # those after the last hold nothing
        ages = sincos(torch.arange(chunks, device=memory.device)[:, None], memory.shape[2], memory.dtype)[age]
        memory = memory + ages.repeat_interleave(self.combined, dim=1) + self.memory_features.repeat(chunks, 1)
        something = valid.any(dim=1, keepdim=True)
        keys_values: list[Pair | None] = []
        for block in self.blocks:
            if block.cross_attention is None:
                keys_values.append(None)
                continue
            keys, values = block.cross_attention.keys_values(memory)
            keys_values.append((keys, values * something[:, :, None, None]))
        return keys_values, valid | ~something

    def _token_angles(self, positions: Tensor, dtype: torch.dtype) -> Pair:
        cos, sin = rotary_angles(positions, self.sizes.head, TOKEN_BASE, dtype)
        return cos[..., None, :], sin[..., None, :]  # [..., 1, head/2]

    def init_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> StreamState:
        """``cache`` [B, layers, 2, L, heads, head], L = max_text, and ``length`` int64 [B]."""
        sizes = self.sizes
        shape = (batch, sizes.layers, 2, self.max_text, sizes.heads, sizes.head)
        return {
            "cache": torch.zeros(shape, device=device, dtype=dtype),
            "length": torch.zeros(batch, device=device, dtype=torch.int64),
        }

    def step(self, token: Tensor, state: StreamState, memory: Tensor, valid: Tensor) -> tuple[Tensor, StreamState]:
        """One token per row: token int64 [B], memory [B, R*m, d], valid bool [B, R*m] -> logits [B, V].

        The caller keeps count: token number ``max_text`` and later ones find no room in the cache and are
        forgotten at once.
        """
        keys_values, valid = self.cross_keys_values(memory, valid)
        hidden, state = self.cached_step(token[:, None], state, keys_values, valid)
        return self.head(hidden[:, 0]), state

    def cached_step(
        self, tokens: Tensor, state: StreamState, keys_values: list[Pair | None], valid: Tensor
    ) -> tuple[Tensor, StreamState]:
        """One token of each of Q texts per clip, [B, Q] -> hidden [B, Q, w]; the state's batch is B*Q.

        ``keys_values`` and ``valid`` as from :meth:`cross_keys_values`.
        """
        clips, texts = tokens.shape
        length = state["length"]
        capacity = state["cache"].shape[3]
        slot = torch.arange(capacity, device=tokens.device)
        here = (slot == length[:, None])[:, :, None, None]  # [S, L, 1, 1]
        seen = (slot <= length[:, None])[:, None, None]  # [S, 1, 1, L]
        table = self._token_angles(slot, state["cache"].dtype)
        place = length.clamp(max=capacity - 1)
        angles = (table[0][place][:, None], table[1][place][:, None])  # [S, 1, 1, head/2]
        x = self.embed(tokens).view(clips * texts, 1, -1)
        stored = []
        for layer, block in enumerate(self.blocks):
            q, k, v = block.self_attention.qkv_of(x, angles)
            keys = torch.where(here, k, state["cache"][:, layer, 0])
            values = torch.where(here, v, state["cache"][:, layer, 1])
            stored.append(torch.stack([keys, values], dim=1))
            x = block.self_attention.add(x, attend(q, keys, values, seen).flatten(-2))
            x = block.finish(x.view(clips, texts, -1), keys_values[layer], valid).view(clips * texts, 1, -1)
        new = {"cache": torch.stack(stored, dim=1), "length": length + 1}
        return x.view(clips, texts, -1), new
