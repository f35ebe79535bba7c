"""Attribution: the chunks that the model read for a token, and the features that raised it, for every combination.

Attention over chunks is the text decoder's cross-attention while it predicts the token, the mean of its heads and
layers, summed over the m latents of a chunk. A latent may hold earlier content, so these are the chunks from which
the content was read, not always those in which it happened.

The contribution of a feature is the gradient of the token's log-odds times the feature (Shrikumar et al. 2016),
positive part: to first order, by how much each of the n features u_t = (v_t, a_t) of each chunk raised the token. A
feature stands for the position of its tube or patch, though the ViT has mixed the positions of a chunk.

Neither is a proof: the model may attend to features without using them, and a gradient shows small changes only. To
find out which inputs are needed, remove them (`muted` and `blanked` in the evaluation). Other definitions and their
results: docs/decisions/0023.
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
class Attribution:
    """Chunks and features behind A tokens of an answer. Missing ones have exactly 0."""

    chunks: Tensor  # [A, T], attention; rows sum to 1
    features: Tensor  # [A, T, n], contributions, video first; sums to 1, or is 0 where nothing raised a token


@dataclass
class Record:
    """Values inside a pass over one clip."""

    features: list[Tensor] = field(default_factory=list)  # u [1, T, n, d], the combiner's input
    cross: list[Tensor] = field(default_factory=list)  # [L, R'*m] of each layer of the text decoder


def attribute(model: Mirasol, batch: Batch, text: Tensor, first: int) -> Attribution:
    """Attribution of the tokens ``text[first:]``, each predicted from those before it.

    Args:
        model: in eval mode. Neither its weights nor their gradients change.
        batch: one clip; its texts are ignored.
        text: int64 [L], prompt and answer.
        first: index of the answer's first token, 1 to L-1.

    Raises:
        ValueError: not one clip, a model in training, no answer, or an empty clip; a tensor of the batch does not fit
            the model.
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
    with torch.enable_grad(), recording(model) as record:
        encoded = model.encode(batch)
        logits = model.logits(text[None, None, :-1], encoded.h, encoded.present)[0, 0, first - 1 :]  # [A, V]
        attention = torch.stack(record.cross).mean(dim=0)[first - 1 :].detach()  # [A, R'*m]
        contributions = torch.stack([_contributions(odds, record) for odds in _log_odds(logits, text[first:])])
    chunks, m = encoded.h.shape[1:3]
    seen = attention.unflatten(1, (-1, m)).sum(dim=-1)
    forgotten = seen.new_zeros(len(seen), chunks - seen.shape[1])  # older than the text model's memory
    total = contributions.sum(dim=(1, 2), keepdim=True)
    return Attribution(torch.cat([forgotten, seen], dim=1), contributions / torch.where(total > 0, total, 1.0))


def _log_odds(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p/(1-p) of the tokens [A]: unlike log p it has a slope where the model is sure."""
    own = logits.gather(1, tokens[:, None])[:, 0]
    return own - logits.scatter(1, tokens[:, None], float("-inf")).logsumexp(dim=1)


def _contributions(odds: Tensor, record: Record) -> Tensor:
    """[T, n]: by how much each feature raised ``odds``, 0 where it did not."""
    (u,) = record.features
    (gradient,) = torch.autograd.grad(odds, u, retain_graph=True)
    return (gradient * u).sum(dim=-1)[0].clamp(min=0).detach()


@contextmanager
def recording(model: Mirasol) -> Iterator[Record]:
    """Record one pass of ``model`` over one clip and one text."""
    record = Record()
    combiner: Any = model.combiner

    def combining(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        u, valid = inputs
        record.features.append(u.detach().requires_grad_())  # the gradient need not go further back
        return record.features[-1], valid

    def crossing(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x, (keys, _), valid = inputs
        record.cross.append(_attention(module, x[0], keys[0], valid))

    handles = [
        combiner.register_forward_pre_hook(combining),
        *(
            block.cross_attention.register_forward_pre_hook(crossing)
            for block in model.text.blocks
            if block.cross_attention is not None
        ),
    ]
    try:
        yield record
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
