"""How the tensors of a file map to the model's parameters, and every tensor that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups

LOADED = "loaded"  # the file's numbers, or the same map written in our terms
INTERPOLATED = "interpolated"
ZERO = "zero"
RANDOM = "random"


@dataclass
class TensorMap:
    """Collects tensors for a model of the given shapes, and all problems: nothing raises halfway."""

    shapes: dict[str, tuple[int, ...]]  # of the model's parameters
    left: dict[str, Tensor] = field(default_factory=dict)  # the file's tensors that were not taken or dropped
    tensors: dict[str, Tensor] = field(default_factory=dict)  # our parameter -> its value
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)  # our parameter -> (LOADED or …, source)
    unused: dict[str, tuple[str, int]] = field(default_factory=dict)  # the file's key -> (why, numbers in it)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Mirasol, file: dict[str, Tensor] | None = None) -> TensorMap:
        """Nothing yet, for ``model``, from the tensors of ``file``."""
        return cls({name: tuple(parameter.shape) for name, parameter in model.named_parameters()}, dict(file or {}))

    def take(self, key: str, shape: Sequence[int]) -> Tensor | None:
        """The file's tensor ``key`` in float32; ``None``, and a problem, if it is missing or of another shape."""
        tensor = self.left.pop(key, None)
        if tensor is None:
            self.problems.append(f"{key}: not in the file, expected {list(shape)}")
        elif list(tensor.shape) != list(shape):
            self.problems.append(f"{key}: {list(tensor.shape)} in the file, expected {list(shape)}")
        elif not tensor.is_floating_point():
            self.problems.append(f"{key}: {tensor.dtype} in the file, expected floating point")
        else:
            return tensor.float()
        return None

    def give(self, name: str, tensor: Tensor, how: str, source: str) -> None:
        """Our parameter ``name`` gets ``tensor``."""
        if tuple(tensor.shape) != self.shapes[name]:
            self.problems.append(f"{name}: {list(tensor.shape)} from {source}, expected {list(self.shapes[name])}")
        self.tensors[name], self.sources[name] = tensor, (how, source)

    def copy(self, key: str, name: str, shape: Sequence[int], source: str) -> None:
        """Our parameter ``name`` gets the file's tensor ``key``."""
        if (tensor := self.take(key, shape)) is not None:
            self.give(name, tensor, LOADED, source)

    def drop(self, key: str, why: str) -> None:
        """The file's tensor ``key`` has no use."""
        self.unused[key] = (why, self.left.pop(key).numel())

    def refuse_the_rest(self) -> None:
        """Make every tensor that is left a problem: the file holds another model than expected."""
        for key, tensor in self.left.items():
            self.problems.append(f"{key}: {list(tensor.shape)} in the file, this layout has no such key")


def account(model: Mirasol, taken: TensorMap) -> list[tuple[str, str, int, str]]:
    """Every parameter of ``model`` once: rows of part, how it starts, number of parameters, source."""
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for part, names in parameter_groups(model).items():
        for name in names:
            how, source = taken.sources.get(name, (RANDOM, "a new start by training.seed"))
            counts[part, how, source] += sizes[name]
    return [(part, how, count, source) for (part, how, source), count in counts.items()]
