"""The losses (P 3.5) and statistics that show a collapse of the latent.

Each loss is a sum over the data divided by a count of the data. The counts do not depend on the model: they can be
added up over micro-batches and processes before anything is divided, so that a gradient does not depend on how a step
is cut (docs/decisions/0070).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mirasol.model.batch import Batch

LOSSES = ("text", "latent", "video", "audio")  # audio where the model reconstructs it


@dataclass(frozen=True)
class Objective:
    """The weights of the losses (P 3.5): one of weight 0 is not computed."""

    text: float = 1.0
    latent: float = 1.0
    video: float = 1.0
    audio: float = 1.0
    latent_target_gradient: bool = False  # whether the latent loss moves x_{t+1} too, not h_t alone
    label_smoothing: float = 0.0  # share of the text loss's target that is spread over the vocabulary

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum of ``losses``, each with its weight."""
        weighed = [getattr(self, name) * losses[name] for name in LOSSES if name in losses]
        return torch.stack(weighed).sum()


def loss_counts(batch: Batch) -> Tensor:
    """The divisor of each of ``LOSSES``, float64 [4]: the weights of the texts, and pairs of neighbouring chunks.

    A pair counts for the latent loss if both chunks hold video or audio, for a reconstruction if the second has that
    modality.
    """
    present = batch.video_present | batch.audio_present
    following = (present, batch.video_present, batch.audio_present)
    pairs = [(present[:, :-1] & second[:, 1:]).sum().double() for second in following]
    return torch.stack([batch.text_weight.sum(dtype=torch.float64), *pairs])


def text_loss(
    logits: Tensor, targets: Tensor, text: Tensor, weight: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the predicted tokens, a mean over the tokens of each text, then a weighted sum over texts.

    Args:
        logits: [N, V] of the tokens to predict.
        targets: int64 [N].
        text: int64 [N], the text that each token belongs to, an index into the flat ``weight``.
        weight: [B, Q], 0 for padding.
        label_smoothing: share of the target spread over the vocabulary.

    Returns:
        The sum, and the mean loss of each text [B, Q] (0 where nothing is predicted).
    """
    loss = F.cross_entropy(_precise(logits), targets, reduction="none", label_smoothing=label_smoothing)
    sums = loss.new_zeros(weight.numel()).index_add(0, text, loss)
    counts = loss.new_zeros(weight.numel()).index_add(0, text, torch.ones_like(loss))
    each = (sums / counts.clamp(min=1)).view_as(weight)
    return (weight * each).sum(), each


def cosine_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - cosine (L2 normalisation, then a dot product: P 3.5), a mean over n vectors, then a sum over valid rows.

    Args:
        predicted: [..., n, d]; target: the same shape.
        valid: bool [...].
    """
    distance = 1.0 - F.cosine_similarity(_precise(predicted), _precise(target), dim=-1, eps=1e-6)
    return (distance.mean(dim=-1) * valid).sum()


def _precise(x: Tensor) -> Tensor:
    """``x`` in fp32, or in fp64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def latent_statistics(x: Tensor) -> dict[str, Tensor]:
    """Statistics that show a collapse of the latent; x [B, T, m, d].

    ``x_std_time`` and ``x_std_batch``: standard deviation of a feature over the chunks of a clip, and over the
    clips of a batch of at least two, root mean square over features. ``x_neighbour_cosine``: mean cosine of x_t and
    x_{t+1} (1: constant in time). ``x_rank``: effective rank of all features, (sum of eigenvalues)^2 / sum of their
    squares, of the covariance: between 1 and d.
    """
    x = x.detach().float()
    flat = x.flatten(0, 2)
    flat = flat - flat.mean(dim=0)
    covariance = flat.T @ flat
    several = {"x_std_batch": x.var(dim=0, correction=0).mean().sqrt()} if len(x) > 1 else {}
    return {
        "x_std_time": x.var(dim=1, correction=0).mean().sqrt(),
        **several,
        "x_neighbour_cosine": F.cosine_similarity(x[:, :-1], x[:, 1:], dim=-1).mean()
        if x.shape[1] > 1
        else x.new_ones(()),
        "x_rank": covariance.trace() ** 2 / covariance.square().sum().clamp(min=1e-12),
    }
