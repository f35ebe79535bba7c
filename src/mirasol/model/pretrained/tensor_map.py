"""What a file offers the model: tensors by our names, where each comes from, and all that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mirasol.model.mirasol import Mirasol, parameter_groups

LOADED = "loaded"  # the file's numbers, or the same map written in our terms
INTERPOLATED = "interpolated"
ZERO = "zero"
RANDOM = "random"


@dataclass
class Found:
    """Tensors for a model of the given shapes, collected with everything that is wrong: nothing raises halfway."""

    shapes: dict[str, tuple[int, ...]]  # of the model's parameters
    tensors: dict[str, Tensor] = field(default_factory=dict)  # our parameter -> its value
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)  # our parameter -> (LOADED or …, from what)
    unused: dict[str, tuple[str, int]] = field(default_factory=dict)  # the file's key -> (why, numbers in it)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Mirasol) -> Found:
        """Nothing yet, for ``model``."""
        return cls({name: tuple(parameter.shape) for name, parameter in model.named_parameters()})

    def give(self, name: str, tensor: Tensor, how: str, source: str) -> None:
        """Our parameter ``name`` gets ``tensor``."""
        if tuple(tensor.shape) != self.shapes[name]:
            self.problems.append(f"{name}: {list(tensor.shape)} from {source}, expected {list(self.shapes[name])}")
        self.tensors[name], self.sources[name] = tensor, (how, source)

    def drop(self, key: str, tensor: Tensor, why: str) -> None:
        """The file's ``key`` goes nowhere."""
        self.unused[key] = (why, tensor.numel())


class Keys:
    """The tensors of a file, and which of them were asked for."""

    def __init__(self, tensors: dict[str, Tensor], found: Found) -> None:
        self.tensors, self.found = tensors, found
        self.left = dict(tensors)

    def take(self, key: str, shape: Sequence[int]) -> Tensor | None:
        """The tensor called ``key`` in float32; ``None``, and a problem, if it is missing or of another shape."""
        tensor = self.left.pop(key, None)
        if tensor is None:
            self.found.problems.append(f"{key}: not in the file, expected {list(shape)}")
            return None
        if list(tensor.shape) != list(shape):
            self.found.problems.append(f"{key}: {list(tensor.shape)} in the file, expected {list(shape)}")
            return None
        if not tensor.is_floating_point():
            self.found.problems.append(f"{key}: {tensor.dtype} in the file, expected floating point")
            return None
        return tensor.float()

    def refuse_the_rest(self) -> None:
        """What nobody asked for is a problem: the file is another model than it was taken for."""
        for key, tensor in self.left.items():
            self.found.problems.append(f"{key}: {list(tensor.shape)} in the file, this layout has no such key")


def account(model: Mirasol, found: Found) -> list[tuple[str, str, int, str]]:
    """Every parameter of ``model`` once: rows of part, how it starts, number of parameters, from what."""
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for part, names in parameter_groups(model).items():
        for name in names:
            how, source = found.sources.get(name, (RANDOM, "a new start by training.seed"))
            counts[part, how, source] += sizes[name]
    return [(part, how, count, source) for (part, how, source), count in counts.items()]
