"""Muon: matrices move along the nearest orthogonal matrix to their momentum; all other parameters by AdamW.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the scale of J. Liu et al.,
"Muon is scalable for LLM training" (2025), by which one learning rate suits both kinds of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mirasol.training.parallel import local_part, whole

MOMENTUM = 0.95
# Of odd quintics, one after the other: together they bring singular values from 0.003 to 1 within 0.78 to 1.20. Each is
# the best one for what the one before leaves, made for values 1 % too large (docs/decisions/0072).
COEFFICIENTS = (
    (8.3007, -24.0372, 17.4660),
    (4.0034, -2.9228, 0.5419),
    (3.4709, -2.5494, 0.5002),
    (2.4655, -1.7803, 0.4156),
)
SCALE = 0.2  # root mean square of an update, as AdamW's
STACK = 1 << 26  # elements orthogonalised at a time: bounds the memory of large models


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``matrices`` of 1 or more are updated by Muon.

    ``matrices`` is the number of matrices that lie one above the other in each parameter of the group.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all groups."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["matrices"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        self._move([group for group in groups if group["matrices"]])
        return loss

    def _move(self, groups: list[dict[str, Any]]) -> None:
        waiting: dict[tuple[int, int], list[_Matrix]] = {}  # by shape
        for group in groups:
            rate, decay = group["lr"], 1.0 - group["lr"] * group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                    state["step"] = torch.zeros(())  # AdamW looks for one in every state that it loads
                momentum = state["momentum_buffer"].mul_(MOMENTUM).add_(parameter.grad)
                direction = whole(parameter.grad.add(momentum, alpha=MOMENTUM))  # Nesterov's
                parameter.mul_(decay)
                parts = direction.chunk(group["matrices"])
                for number, part in enumerate(parts):
                    shape = (min(part.shape), max(part.shape))
                    waiting.setdefault(shape, []).append(_Matrix(parameter, number * len(parts[0]), part, rate))
                    if len(waiting[shape]) * shape[0] * shape[1] >= STACK:
                        _update(waiting.pop(shape))
        for entries in waiting.values():
            _update(entries)


@dataclass(frozen=True)
class _Matrix:
    """One matrix of a parameter, and where it is to go."""

    parameter: Tensor
    first: int  # its first row there
    direction: Tensor
    rate: float


def _update(matrices: list[_Matrix]) -> None:
    """Move matrices of one shape, or its transpose; each process of a sharded model does it all for its rows."""
    wide = [m.direction if m.direction.shape[0] <= m.direction.shape[1] else m.direction.T for m in matrices]
    for matrix, update in zip(matrices, orthogonal(torch.stack(wide)).unbind(), strict=True):
        update = update if update.shape == matrix.direction.shape else update.T
        rows, chosen = local_part(matrix.parameter, matrix.first, len(matrix.direction))
        rows.sub_(update[chosen].to(rows.dtype), alpha=matrix.rate * SCALE * max(update.shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [k, a, b] with a <= b to nearly orthogonal ones: their singular values become about 1.

    N. Amsel et al., "The Polar Express" (2025), in bf16 on a GPU. Of wide matrices only the Gram matrix [a, a] is
    iterated, which is less work; the product of its polynomials is applied at the end.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.is_cuda or x.shape[2] < 2 * x.shape[1]:  # in bf16 squares of squares lose too much
        for a, b, c in COEFFICIENTS:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    product = factor = _factor(gram, COEFFICIENTS[0])
    for coefficients in COEFFICIENTS[1:]:
        gram = factor @ (factor @ gram)  # all of them commute
        factor = _factor(gram, coefficients)
        product = factor @ product
    return product @ x


def _factor(gram: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """The even polynomial of ``gram`` by which a quintic multiplies its matrix."""
    a, b, c = coefficients
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
