"""Blocks that keep less for the backward pass and compute it again there (docs/decisions/0064)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from mirasol.model.layers import Block
from mirasol.model.text import TextBlock
from mirasol.training.config import RECOMPUTE

_aten = torch.ops.aten
_PRODUCTS = {_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default}
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def apply_recompute(model: nn.Module, mode: str) -> None:
    """Let every ``Block`` and ``TextBlock`` of ``model`` compute again in the backward pass; gradients stay the same.

    ``full`` keeps the input of a block. ``selective`` keeps the results of its attention and matrix products too, so
    that norms, activations and additions alone are computed twice; a product compiled into a larger kernel, such as
    FlexAttention, counts as one of these. Names in the state dict stay. Call it once, before the model is compiled or
    sharded.

    Raises:
        ValueError: no such mode.
    """
    if mode not in RECOMPUTE:
        raise ValueError(f"recompute {mode!r}, expected one of {', '.join(RECOMPUTE)}")
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in model.modules():
        if isinstance(block, Block | TextBlock):
            block.forward = partial(_again, block.forward, options)  # type: ignore[method-assign]


def _again(function: Callable[..., Any], options: dict[str, Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():  # nothing is kept; a stream's attention must not run twice either
        return function(*given, **named)
    with _without_cache(given[0].device.type):
        return checkpoint(function, *given, **options, **named)


def _without_cache(device: str) -> torch.autocast:
    """Autocast as it is, but every use of a weight casts it anew.

    A cast kept from the ViT's first use would be missing when its second use is computed again, and all casts together
    would stay until the end of the forward pass: 2 bytes for each weight.
    """
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def _policy(context: Any, operator: Any, *given: Any, **named: Any) -> CheckpointPolicy:
    if operator in _ATTENTION or (operator in _PRODUCTS and not _narrows(*given)):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _narrows(*given: Any) -> bool:
    """Whether a product maps to fewer features, as the last of an MLP does: the backward pass never reads its result.

    What it is added to is the input of the next block, which is kept there.
    """
    weight = given[-1]
    return bool(weight.shape[-1] < weight.shape[-2])
