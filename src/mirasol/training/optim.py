"""The optimiser and its learning rate (S 4), both functions of the settings and the step alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups
from mirasol.training.config import PhaseConfig
from mirasol.training.muon import Muon

STACKED = {"qkv": 3, "kv": 2}  # matrices in the weight of a linear map of this name


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
    """Optimiser groups, matrices with decay and the rest without, for every part of the model, frozen or not.

    ``matrices`` is 0 in a group without decay, else the number of matrices stacked in each parameter of the group:
    queries, keys and values are three. The layout depends on the model alone. No optimiser changes a parameter without
    a gradient, so a frozen one stays.
    """
    parameters = dict(model.named_parameters())
    decayed = decayed_names(model)
    groups: list[dict[str, Any]] = []
    for part, names in parameter_groups(model).items():
        kinds = {name: STACKED.get(name.split(".")[-2], 1) if name in decayed else 0 for name in names}
        for kind in sorted(set(kinds.values()), reverse=True):
            members = [parameters[name] for name in names if kinds[name] == kind]
            decay = weight_decay if kind else 0.0
            groups.append({"name": f"{part}/{kind}", "params": members, "weight_decay": decay, "matrices": kind})
    return groups


def build_optimizer(model: Mirasol, config: PhaseConfig, *, fused: bool) -> torch.optim.Optimizer:
    """The optimiser that the phase names, with torch's default betas, as S 4 has it."""
    groups = build_groups(model, config.weight_decay)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "muon": Muon}[config.optimizer]
    return kind(groups, lr=learning_rate(0, config), fused=fused)
