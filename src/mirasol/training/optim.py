"""AdamW and its learning rate (S 4), both functions of the settings and the step alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups
from mirasol.training.config import PhaseConfig


def learning_rate(step: int, config: PhaseConfig) -> float:
    """The rate of optimiser step ``step`` (0 for the first): linear warm-up, then a cosine down to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def decayed_names(model: nn.Module) -> set[str]:
    """Names of the parameters under weight decay: matrices that multiply, no norms, biases or embeddings."""
    return {
        name
        for prefix, module in model.named_modules()
        for name, parameter in module.named_parameters(prefix, recurse=False)
        if parameter.ndim >= 2 and name.endswith("weight") and not isinstance(module, nn.Embedding)
    }


def build_groups(model: Mirasol, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimiser groups, with and without decay, for every part of the model, frozen or not.

    The layout depends on the model alone. AdamW changes no parameter without a gradient, so a frozen one stays.
    """
    parameters = dict(model.named_parameters())
    decayed = decayed_names(model)
    groups: list[dict[str, Any]] = []
    for part, names in parameter_groups(model).items():
        for decay in (True, False):
            members = [parameters[name] for name in names if (name in decayed) == decay]
            if members:
                label = f"{part}/{'decay' if decay else 'plain'}"
                groups.append({"name": label, "params": members, "weight_decay": weight_decay if decay else 0.0})
    return groups


def build_optimizer(model: Mirasol, config: PhaseConfig, *, fused: bool) -> torch.optim.AdamW:
    """AdamW with torch's default betas, as S 4 has it."""
    groups = build_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate(0, config), fused=fused)
