"""Weights of a mirasol checkpoint in a model of other sizes.

Frames per chunk, resolution and chunks change no shape: positions are fixed, a tube is a tube. Tubes and patches of
other sizes are resampled, pieces of another vocabulary keep their rows, a part of another kind (another combiner)
starts at random. Any other difference is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from torch import Tensor

from mirasol.model.config import ModelConfig, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.resize import resample
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, TensorMap
from mirasol.model.pretrained.vocabulary import Vocabulary, move_rows

SOURCE = "mirasol"
SIZES = {  # the transformer of each part
    "audio": "vit",
    "vit": "vit",
    "combiner": "combiner_sizes",
    "latent": "latent_sizes",
    "reconstruction": "reconstruction_sizes",
    "audio_reconstruction": "reconstruction_sizes",
    "text": "text",
}


def read_mirasol(
    tensors: dict[str, Tensor],
    config: ModelConfig,
    vocabulary: Vocabulary,
    model: Mirasol,
    wanted: Callable[[str], bool] = lambda part: True,
) -> TensorMap:
    """Map the weights of a model of ``config`` to ``model``.

    Args:
        tensors: ``weights.safetensors`` of the checkpoint.
        config: its sizes.
        vocabulary: our pieces among its pieces.
        model: decides the shapes, and the rows of pieces that the file lacks.
        wanted: which parts (``vit``, ``text``, …) to take.
    """
    taken = TensorMap.of(model, tensors)
    new, skipped = model.config, _other_kinds(config, model.config)
    for name, old_value in config.to_dict().items():
        if old_value != (value := new.to_dict()[name]) and name not in ("dropout",):
            taken.notes.append(f"{name}: {old_value} there, {value} here")
    theirs, ours = (dict.fromkeys(_part(name) for name in names) for names in (tensors, taken.shapes))
    skipped |= dict.fromkeys(ours.keys() - theirs.keys(), "a part that is not there")
    skipped |= dict.fromkeys(theirs.keys() - ours.keys(), "a part that is not here")
    for key in tensors:
        if _part(key) in skipped or not wanted(_part(key)):
            taken.drop(key, skipped.get(_part(key), "not asked for"))
    for part in ours:
        size = SIZES.get(part)
        if part in skipped or not wanted(part):
            continue
        if size is not None and _shape(config, size) != _shape(new, size):  # one problem, not one a tensor
            taken.problems.append(f"{part}: {size} is {getattr(config, size)} there, {getattr(new, size)} here")
            taken.left = {key: tensor for key, tensor in taken.left.items() if _part(key) != part}
        elif part == "video_tubes":
            _tubes(taken, config, model)
        else:
            for name in (name for name in taken.shapes if _part(name) == part):
                _one(name, taken, config, vocabulary, model)
    taken.refuse_the_rest()
    return taken


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _shape(config: ModelConfig, size: str) -> Sizes:
    """Sizes of a part, except the epsilon of its norms: that is not in the weights and changes next to nothing."""
    return dataclasses.replace(getattr(config, size), eps=0.0)


def _other_kinds(old: ModelConfig, new: ModelConfig) -> dict[str, str]:
    """Parts that are another function by choice, and why their weights are of no use."""
    parts = {}
    for part, choices in (("combiner", ("ttm_encoder", "queries", "combiner")), ("latent", ("latent",))):
        for choice in choices:
            before, now = getattr(old, choice), getattr(new, choice)
            if before != now:
                parts[part] = f"{choice} is {before} there, {now} here: this part starts at random"
    return parts


def _one(name: str, taken: TensorMap, config: ModelConfig, vocabulary: Vocabulary, model: Mirasol) -> None:
    new, shape = model.config, taken.shapes[name]
    if name == "audio.project.weight" and config.audio_patch != new.audio_patch:
        theirs = taken.take(name, (shape[0], math.prod(config.audio_patch)))
        if theirs is not None:
            kernel = resample(theirs.unflatten(1, (1, *config.audio_patch)), new.audio_patch)
            source = f"{SOURCE}, {_by(config.audio_patch)} to {_by(new.audio_patch)}"
            taken.give(name, kernel.flatten(1), INTERPOLATED, source)
    elif name == "text.embedding.weight":
        table = taken.take(name, (vocabulary.size, shape[1]))
        if table is not None:
            moved = move_rows(model.text.embedding.weight.detach(), table, vocabulary.rows)
            some = f", {len(vocabulary.rows):,} of {shape[0]:,} pieces, the others random"
            taken.give(name, moved, LOADED, SOURCE + (some if len(vocabulary.rows) < shape[0] else ""))
    else:
        taken.copy(name, name, shape, SOURCE)


def _tubes(taken: TensorMap, config: ModelConfig, model: Mirasol) -> None:
    """Each tube from the checkpoint's tube of its shape, or else the one that differs least in its sides."""
    shapes = [*config.tubes, *([(1, config.patch, config.patch)] if config.patch else [])]
    width = model.config.vit.width
    kernels: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
    for index, shape in enumerate(shapes):
        name = f"video_tubes.projections.{index}"
        weight = taken.take(f"{name}.weight", (width, 3 * math.prod(shape)))
        bias = taken.take(f"{name}.bias", (width,))
        if weight is None or bias is None:
            return
        kernels[shape] = weight.unflatten(1, (3, *shape)), bias

    def unlike(mine: tuple[int, ...], other: tuple[int, ...]) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(mine, other, strict=True))

    for index, lattice in enumerate(model.video_tubes.lattices):
        nearest = min(kernels, key=functools.partial(unlike, lattice.shape))
        weight, bias = kernels[nearest]
        same = nearest == lattice.shape
        how, source = (LOADED, SOURCE) if same else (INTERPOLATED, f"{SOURCE}, {_by(nearest)} to {_by(lattice.shape)}")
        name = f"video_tubes.projections.{index}"
        taken.give(f"{name}.weight", resample(weight, lattice.shape).flatten(1), how, source)
        taken.give(f"{name}.bias", bias, LOADED, SOURCE)
    for name in (name for name in taken.shapes if config.motion and name.startswith("video_tubes.motion.")):
        taken.copy(name, name, taken.shapes[name], SOURCE)


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
