"""Where the model looked when it said a token, and what counted: the same for every combiner and latent model.

Attention over chunks is the text decoder's cross-attention while it predicts the token, the mean of its heads and
layers, summed over the m latents of a chunk. A latent may hold what came before its chunk, so these are the chunks
from which it was read, not always those in which it happened.

What counted in the picture and the sound is the gradient of the token's log-odds times the feature (Shrikumar et al.
2016), positive part: to first order, by how much each of the n features u_t = (v_t, a_t) of each chunk raised the
token. A feature stands for the place of its tube or patch, though the ViT has mixed the places of a chunk.

Both are a reading, no proof: attention may be paid to what is not used, and a gradient sees small changes only. To
know what is needed, take it away (`muted` and `blanked` in the evaluation). Other definitions, and what they showed:
docs/decisions/0023.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mirasol.model.batch import Batch
from mirasol.model.layers import split_heads
from mirasol.model.mirasol import Mirasol


@dataclass(frozen=True)
class Looks:
    """What A tokens of an answer looked at. What is missing has exactly 0."""

    chunks: Tensor  # [A, T], attention; rows sum to 1
    features: Tensor  # [A, T, n], what counted, video features first; sums to 1, or is 0 where nothing raised a token


@dataclass
class Noted:
    """What went through a pass over one clip."""

    features: list[Tensor] = field(default_factory=list)  # u [1, T, n, d], as the combiner gets them
    cross: list[Tensor] = field(default_factory=list)  # [L, R'*m] of each layer of the text decoder


def look_back(model: Mirasol, batch: Batch, text: Tensor, first: int) -> Looks:
    """Where the tokens ``text[first:]`` looked, each when it was predicted from those before it.

    Args:
        model: in eval mode. Neither its weights nor their gradients are touched.
        batch: one clip; its texts do not count.
        text: int64 [L], prompt and answer.
        first: index of the answer's first token, 1 to L-1.

    Raises:
        ValueError: not one clip, a model in training, no answer, or a clip that holds nothing; a tensor of the batch
            does not fit the model.
    """
    clips = batch.video.shape[0]
    if clips != 1 or model.training:
        raise ValueError(
            f"{clips} clips, model {'in training' if model.training else 'in eval'}: expected 1 clip, eval"
        )
    if not 1 <= first < len(text):
        raise ValueError(f"the answer begins at token {first} of {len(text)}, expected 1 to {len(text) - 1}")
    if not bool((batch.video_present | batch.audio_present).any()):
        raise ValueError("the clip holds neither video nor audio in any chunk: there is nothing to look at")
    with torch.enable_grad(), noting(model) as noted:
        encoded = model.encode(batch)
        logits = model.logits(text[None, None, :-1], encoded.h, encoded.present)[0, 0, first - 1 :]  # [A, V]
        attention = torch.stack(noted.cross).mean(dim=0)[first - 1 :].detach()  # [A, R'*m]
        counted = torch.stack([_counted(odds, noted) for odds in _log_odds(logits, text[first:])])
    chunks, m = encoded.h.shape[1:3]
    seen = attention.unflatten(1, (-1, m)).sum(dim=-1)
    forgotten = seen.new_zeros(len(seen), chunks - seen.shape[1])  # older than the text model's memory
    total = counted.sum(dim=(1, 2), keepdim=True)
    return Looks(torch.cat([forgotten, seen], dim=1), counted / torch.where(total > 0, total, 1.0))


def _log_odds(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p/(1-p) of the tokens [A]: unlike log p it has a slope where the model is sure."""
    own = logits.gather(1, tokens[:, None])[:, 0]
    return own - logits.scatter(1, tokens[:, None], float("-inf")).logsumexp(dim=1)


def _counted(odds: Tensor, noted: Noted) -> Tensor:
    """[T, n]: by how much each feature raised ``odds``, 0 where it did not."""
    (u,) = noted.features
    (gradient,) = torch.autograd.grad(odds, u, retain_graph=True)
    return (gradient * u).sum(dim=-1)[0].clamp(min=0).detach()


@contextmanager
def noting(model: Mirasol) -> Iterator[Noted]:
    """Note what goes through ``model`` while this lasts: one pass over one clip, one text."""
    noted = Noted()
    combiner: Any = model.combiner

    def combining(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        u, valid = inputs
        noted.features.append(u.detach().requires_grad_())  # the gradient need not go further back
        return noted.features[-1], valid

    def crossing(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x, (keys, _), valid = inputs
        noted.cross.append(_attention(module, x[0], keys[0], valid))

    handles = [
        combiner.register_forward_pre_hook(combining),
        *(
            block.cross_attention.register_forward_pre_hook(crossing)
            for block in model.text.blocks
            if block.cross_attention is not None
        ),
    ]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def _attention(cross: Any, x: Tensor, keys: Tensor, valid: Tensor | None) -> Tensor:
    """Attention [L, R'*m] of tokens x [L, w] over keys [R'*m, heads, head], mean of the heads."""
    q = split_heads(cross.q(cross.norm(x)), cross.heads)
    scores = torch.einsum("qhc,khc->hqk", q, keys) * q.shape[-1] ** -0.5
    if valid is not None:
        scores = scores.masked_fill(~valid, float("-inf"))
    return scores.softmax(dim=-1).mean(dim=0)
