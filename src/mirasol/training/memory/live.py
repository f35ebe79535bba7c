"""Bytes of the tensors that are alive while a program runs: counted, on real tensors or on fake ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = ("activations", "casts", "root_casts", "gradients", "root_gradients")


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operator makes, from its birth to its end.

    ``rows`` holds, for each storage that appears, the bytes alive by then: one number for each of :data:`KINDS`. A
    copy of a parameter in another type is a cast; a gradient is one from the moment that autograd has added it up, and
    temporary before. Parameters, and tensors made before, are not counted. Memory that a kernel allocates and frees
    inside of one operator is not seen.
    """

    def __init__(self, parameters: Iterable[tuple[Tensor, bool]]) -> None:
        """``parameters``: each with True if it belongs to no block, so that FSDP gathers it with the root."""
        super().__init__()
        self.rows: list[tuple[int, ...]] = []
        self._live = [0] * len(KINDS)
        self._known: dict[int, tuple[int, int]] = {}  # storage -> index of its kind, bytes; parameters have -1
        self._root: dict[int, bool] = {}
        for parameter, root in parameters:
            key = _key(parameter)
            self._known[key] = (-1, 0)
            self._root[key] = root
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._accumulated)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = KINDS.index("activations")
        if func is torch.ops.aten._to_copy.default and (root := self._root.get(_key(args[0]))) is not None:
            kind = KINDS.index("root_casts" if root else "casts")
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf, kind)
        return out

    def add(self, tensor: Tensor, kind: int) -> None:
        """Count the storage of ``tensor`` as of kind number ``kind``, unless it is known."""
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known:
            return
        self._known[key] = (kind, storage.nbytes())
        self._live[kind] += storage.nbytes()
        self.rows.append(tuple(self._live))
        weakref.finalize(storage, self._ended, key)

    def _ended(self, key: int) -> None:
        kind, size = self._known.pop(key)
        self._live[kind] -= size

    def _accumulated(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        key = _key(parameter.grad)
        kind, size = self._known.get(key, (-1, 0))
        if kind != KINDS.index("activations"):
            return  # its second share, added in place
        gradient = KINDS.index("root_gradients" if self._root[_key(parameter)] else "gradients")
        self._known[key] = (gradient, size)
        self._live[kind] -= size
        self._live[gradient] += size
        self.rows.append(tuple(self._live))

    def known_gradient(self, parameter: Tensor) -> None:
        """Count the gradient that ``parameter`` has already."""
        assert parameter.grad is not None
        name = "root_gradients" if self._root[_key(parameter)] else "gradients"
        self.add(parameter.grad, KINDS.index(name))

    @property
    def live(self) -> dict[str, int]:
        """Bytes alive now, by kind."""
        return dict(zip(KINDS, self._live, strict=True))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
