"""The losses (P 3.5) and statistics that show a collapse of the latent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def text_loss(
    logits: Tensor, targets: Tensor, text: Tensor, weight: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the predicted tokens, a mean over the tokens of each text, then a weighted mean over texts.

    Args:
        logits: [N, V] of the tokens to predict.
        targets: int64 [N].
        text: int64 [N], the text that each token belongs to, an index into the flat ``weight``.
        weight: [B, Q], 0 for padding.
        label_smoothing: share of the target spread over the vocabulary.

    Returns:
        The scalar loss, and the mean loss of each text [B, Q] (0 where nothing is predicted).
    """
    loss = F.cross_entropy(_precise(logits), targets, reduction="none", label_smoothing=label_smoothing)
    sums = loss.new_zeros(weight.numel()).index_add(0, text, loss)
    counts = loss.new_zeros(weight.numel()).index_add(0, text, torch.ones_like(loss))
    each = (sums / counts.clamp(min=1)).view_as(weight)
    return (weight * each).sum() / weight.sum().clamp(min=1e-8), each


def cosine_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - cosine (L2 normalisation, then a dot product: P 3.5), a mean over the vectors that are valid.

    Args:
        predicted: [..., d]; target: the same shape, taken as it is, without a gradient.
        valid: bool [...], broadcast to the vectors; with none valid the loss is 0.
    """
    distance = 1.0 - F.cosine_similarity(_precise(predicted), _precise(target.detach()), dim=-1, eps=1e-6)
    counted = valid.expand_as(distance).to(distance.dtype)
    return (distance * counted).sum() / counted.sum().clamp(min=1.0)


def _precise(x: Tensor) -> Tensor:
    """``x`` in fp32, or in fp64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def latent_statistics(x: Tensor) -> dict[str, Tensor]:
    """Statistics that show a collapse of the latent; x [B, T, m, d].

    ``x_std_time`` and ``x_std_batch``: standard deviation of a feature over the chunks of a clip, and over the
    clips of a batch, root mean square over features. ``x_neighbour_cosine``: mean cosine of x_t and x_{t+1}
    (1: constant in time). ``x_rank``: effective rank of all features, (sum of eigenvalues)^2 / sum of their
    squares, of the covariance: between 1 and d.
    """
    x = x.detach().float()
    flat = x.flatten(0, 2)
    flat = flat - flat.mean(dim=0)
    covariance = flat.T @ flat
    return {
        "x_std_time": x.var(dim=1, correction=0).mean().sqrt(),
        "x_std_batch": x.var(dim=0, correction=0).mean().sqrt(),
        "x_neighbour_cosine": F.cosine_similarity(x[:, :-1], x[:, 1:], dim=-1).mean()
        if x.shape[1] > 1
        else x.new_ones(()),
        "x_rank": covariance.trace() ** 2 / covariance.square().sum().clamp(min=1e-12),
    }
