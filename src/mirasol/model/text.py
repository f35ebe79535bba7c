"""The text model (P 3.4, eq. 9): a causal decoder with cross-attention to all of h."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirasol.model.attention.chunk_causal import attend
from mirasol.model.config import ModelConfig, Sizes
from mirasol.model.layers import MLP, split_heads
from mirasol.model.positions import TOKEN_BASE, rotary_angles, rotate, sincos

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Memory:
    """h as the decoder's cross-attention reads it, the same for all texts of a clip."""

    keys_values: list[Pair | None]  # of each layer, [B, R*m, heads, head]; None without cross-attention
    valid: Tensor  # bool [B, R*m], at least one True in a row


@dataclass(frozen=True)
class Past:
    """The P tokens before the next C tokens of each text, which may continue it in different ways: a tree."""

    keys_values: list[Pair]  # of each layer, [B*Q, P, heads, head]
    positions: Tensor  # int64 [B, Q, C], the index of each next token in its text; beyond the last: the last
    seen: Tensor  # bool [B*Q, C, P+C], which of the P and the C tokens a next token sees, itself among them
    slot: Tensor | None = None  # bool [B*Q, P]: a single next token replaces this one of the P; seen is [B*Q, 1, P]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> Pair:
        """The layer's keys and values with those of the next tokens."""
        keys, values = self.keys_values[layer]
        if self.slot is None:
            return torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        slot = self.slot[:, :, None, None]
        return torch.where(slot, k, keys), torch.where(slot, v, values)


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


# x [B, tokens, w] -> attended [B, tokens, heads*head], and the layer's keys and values
Attention = Callable[[SelfAttention, Tensor], tuple[Tensor, Pair]]


class CrossAttention(nn.Module):
    """Pre-norm attention to the memory, then its own MLP unless ``hidden`` is 0."""

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
        """Keys and values [B, R*m, heads, head] of memory [B, R*m, d]; they do not depend on the text."""
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

    def forward(
        self, x: Tensor, attention: Attention, cross: Pair | None, valid: Tensor, picked: Tensor | None = None
    ) -> tuple[Tensor, Pair]:
        """The residual stream after the block, and the keys and values of its self-attention.

        Args:
            x: [B, tokens, w].
            attention: what the tokens see of each other.
            cross: keys and values of the memory, ``None`` without cross-attention.
            valid: bool [B, R*m], of the memory.
            picked: int64 [B, S], the only tokens to go on with after self-attention; ``None`` for all.
        """
        mixed, keys_values = attention(self.self_attention, x)
        if picked is not None:
            x, mixed = (y.gather(1, picked[..., None].expand(-1, -1, y.shape[-1])) for y in (x, mixed))
        x = self.self_attention.add(x, mixed)
        if self.cross_attention is not None and cross is not None:
            x = self.cross_attention(x, cross, valid)
        return self.mlp(x), keys_values


class TextDecoder(nn.Module):
    """Tokens and h in, the next token's logits out. The embedding is tied to the output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = config.text
        self.max_text = config.max_text
        self.max_chunks = config.max_chunks
        self.num_queries = config.num_queries
        self.embedding = nn.Embedding(config.vocabulary, config.text.width)
        if not 1 <= config.cross_every <= config.text.layers:
            raise ValueError(
                f"cross-attention in every {config.cross_every}th of {config.text.layers} text layers, "
                f"expected 1 to {config.text.layers}"
            )
        self.blocks: Any = nn.ModuleList(TextBlock(config, layer) for layer in range(config.text.layers))
        self.norm = nn.LayerNorm(config.text.width, eps=config.text.eps)
        # Tells the m features of a chunk apart: without it, "the one at the left" is learnt very late.
        self.memory_features = nn.Parameter(torch.empty(config.num_queries, config.latent_sizes.width))

    def start(self) -> None:
        """Tokens of unit norm, so that the tied head can be sure even while it is frozen; distinct features."""
        nn.init.normal_(self.embedding.weight, std=self.sizes.width**-0.5)
        nn.init.normal_(self.memory_features, std=0.7)

    def head(self, hidden: Tensor) -> Tensor:
        """[..., w] -> logits [..., V]."""
        return F.linear(self.norm(hidden), self.embedding.weight)

    def memory_of(self, h: Tensor, present: Tensor) -> Memory:
        """The last R chunks of h [B, T, m, d] as memory; ``present`` is bool [B, T]."""
        h, present = h[:, -self.max_chunks :], present[:, -self.max_chunks :]
        return self.read_memory(h.flatten(1, 2), present.repeat_interleave(self.num_queries, dim=1))

    def read_memory(self, memory: Tensor, valid: Tensor) -> Memory:
        """Each layer's keys and values of memory [B, R'*m, d], of which ``valid`` bool [B, R'*m] marks features of h.

        Fixed sin/cos of a chunk's age, counted back from the last valid chunk, is added to keys and values, so that
        an answer can say when; and a learned vector that tells the m features apart. Where nothing is valid,
        everything is visible (a softmax over nothing is not finite) and has the value zero.
        """
        chunks = memory.shape[1] // self.num_queries
        present = valid.view(-1, chunks, self.num_queries).any(dim=-1)
        index = torch.arange(chunks, device=memory.device)
        last = torch.where(present, index, 0).amax(dim=1, keepdim=True)
        age = (last - index).abs()  # chunks after the last are not valid
        ages = sincos(torch.arange(chunks, device=memory.device)[:, None], memory.shape[2], memory.dtype)[age]
        memory = memory + ages.repeat_interleave(self.num_queries, dim=1) + self.memory_features.repeat(chunks, 1)
        something = valid.any(dim=1, keepdim=True)
        keys_values: list[Pair | None] = []
        for block in self.blocks:
            if block.cross_attention is None:
                keys_values.append(None)
                continue
            keys, values = block.cross_attention.keys_values(memory)
            keys_values.append((keys, values * something[:, :, None, None]))
        return Memory(keys_values, valid | ~something)

    def forward(
        self, tokens: Tensor, memory: Memory, past: Past | None = None, picked: Tensor | None = None
    ) -> tuple[Tensor, list[Pair]]:
        """Hidden states of the next tokens of each text.

        Args:
            tokens: int64 [B, Q, L], padded on the right.
            memory: of the B clips.
            past: of the B*Q texts; ``None`` where the tokens are their first L.
            picked: int64 [B, S], q*L + l of the wanted hidden states: the last layer computes no other.

        Returns:
            Hidden states [B, Q, L, w], or [B, S, w] of the picked tokens; and each layer's keys and values of past and
            tokens, [B*Q, P+L, heads, head].

        Raises:
            ValueError: the texts are longer than the cache.
        """
        texts, length = tokens.shape[1:]
        if past is None and length > self.max_text:
            raise ValueError(f"texts of {length} tokens, the text cache holds {self.max_text}")
        x = (self.embedding(tokens) * math.sqrt(self.sizes.width)).flatten(1, 2)  # [B, Q*L, w], unit variance
        angles = self._angles(length if past is None else self.max_text, x)
        if past is not None:
            index = past.positions.flatten(0, 1).clamp(max=self.max_text - 1)
            angles = angles[0][index], angles[1][index]  # [B*Q, C, 1, head/2]
        cache = []
        for layer, (block, cross) in enumerate(zip(self.blocks, memory.keys_values, strict=True)):
            attention = partial(_attend_texts, texts=texts, angles=angles, past=past, number=layer)
            chosen = picked if layer == self.sizes.layers - 1 else None
            x, keys_values = block(x, attention, cross, memory.valid, chosen)
            cache.append(keys_values)
        return (x if picked is not None else x.unflatten(1, (texts, length))), cache

    def _angles(self, length: int, x: Tensor) -> Pair:
        """Of the first ``length`` tokens of a text, [length, 1, head/2]."""
        positions = torch.arange(length, device=x.device)
        cos, sin = rotary_angles(positions, self.sizes.head, TOKEN_BASE, x.dtype)
        return cos[:, None], sin[:, None]


def _attend_texts(
    layer: SelfAttention, x: Tensor, *, texts: int, angles: Pair, past: Past | None, number: int
) -> tuple[Tensor, Pair]:
    """Self-attention of each of the Q texts in x [B, Q*L, w]; ``number`` is the layer's in ``past``."""
    clips, tokens = x.shape[:2]
    q, k, v = layer.qkv_of(x.view(clips * texts, tokens // texts, -1), angles)
    if past is not None:
        k, v = past.extend(number, k, v)
    # texts are padded on the right: being causal, they need no mask
    seen = None if past is None else past.seen[:, None]
    return attend(q, k, v, seen, causal=past is None).reshape(clips, tokens, -1), (k, v)
