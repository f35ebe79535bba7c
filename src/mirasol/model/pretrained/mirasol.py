"""Weights of an earlier mirasol model in one of other sizes: what may differ, and what becomes of it.

Frames per chunk, resolution and chunks are in no shape: positions are fixed, a tube is a tube. Tubes and patches of
other sizes are resampled, pieces of another vocabulary keep their rows, a part that is chosen anew (another combiner)
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
from mirasol.model.pretrained.tensor_map import INTERPOLATED, LOADED, Found, Keys
from mirasol.model.pretrained.vocabulary import Vocabulary, move_rows

SOURCE = "mirasol"
SIZES = {  # of which transformer each part is
    "audio": "vit",
    "vit": "vit",
    "combiner": "combiner_sizes",
    "latent": "latent_sizes",
    "reconstruction": "reconstruction_sizes",
    "audio_reconstruction": "reconstruction_sizes",
    "text": "text",
}


def read_earlier(
    tensors: dict[str, Tensor],
    config: ModelConfig,
    vocabulary: Vocabulary,
    model: Mirasol,
    wanted: Callable[[str], bool] = lambda part: True,
) -> Found:
    """What the weights of a model of ``config`` give to ``model``.

    Args:
        tensors: ``weights.safetensors`` of the earlier model.
        config: its sizes.
        vocabulary: our pieces among its pieces.
        model: decides the shapes, and the rows of pieces that the file does not have.
        wanted: which parts (``vit``, ``text``, …) to take.
    """
    found = Found.of(model)
    new, anew = model.config, _chosen_anew(config, model.config)
    for name, old_value in config.to_dict().items():
        if old_value != (value := new.to_dict()[name]) and name not in ("dropout", "feature_mask"):
            found.notes.append(f"{name}: {old_value} there, {value} here")
    keys = Keys(tensors, found)
    theirs, ours = ({name.split(".", 1)[0] for name in names} for names in (tensors, found.shapes))
    anew |= dict.fromkeys(ours - theirs, "a part that is not there")
    anew |= dict.fromkeys(theirs - ours, "a part that is not here")
    for key in tensors:
        part = key.split(".", 1)[0]
        if part in anew or not wanted(part):
            found.drop(key, keys.left.pop(key), anew.get(part, "not asked for"))
    for part in dict.fromkeys(name.split(".", 1)[0] for name in found.shapes):
        size = SIZES.get(part)
        if part in anew or not wanted(part):
            continue
        if size is not None and _shape(config, size) != _shape(new, size):  # one problem, not one a tensor
            found.problems.append(f"{part}: {size} is {getattr(config, size)} there, {getattr(new, size)} here")
            keys.left = {key: tensor for key, tensor in keys.left.items() if key.split(".", 1)[0] != part}
        elif part == "video_tubes":
            _tubes(keys, config, model, found)
        else:
            for name in (name for name in found.shapes if name.split(".", 1)[0] == part):
                _one(name, keys, config, vocabulary, model, found)
    keys.refuse_the_rest()
    return found


def _shape(config: ModelConfig, size: str) -> Sizes:
    """Sizes of a part, save the epsilon of its norms: that is not in the weights and makes next to no difference."""
    return dataclasses.replace(getattr(config, size), eps=0.0)


def _chosen_anew(old: ModelConfig, new: ModelConfig) -> dict[str, str]:
    """Parts that are another function by choice, and why their weights are of no use."""
    anew = {}
    for part, choices in (("combiner", ("combiner", "queries")), ("latent", ("latent",))):
        for choice in choices:
            before, now = getattr(old, choice), getattr(new, choice)
            if before != now:
                anew[part] = f"{choice} is {before} there, {now} here: this part starts anew"
    return anew


def _one(name: str, keys: Keys, config: ModelConfig, vocabulary: Vocabulary, model: Mirasol, found: Found) -> None:
    new, shape = model.config, found.shapes[name]
    if name == "audio.project.weight" and config.audio_patch != new.audio_patch:
        theirs = keys.take(name, (shape[0], math.prod(config.audio_patch)))
        if theirs is not None:
            kernel = resample(theirs.unflatten(1, (1, *config.audio_patch)), new.audio_patch)
            source = f"{SOURCE}, {_by(config.audio_patch)} to {_by(new.audio_patch)}"
            found.give(name, kernel.flatten(1), INTERPOLATED, source)
    elif name == "text.embedding.weight":
        table = keys.take(name, (vocabulary.size, shape[1]))
        if table is not None:
            moved = move_rows(model.text.embedding.weight.detach(), table, vocabulary.rows)
            some = f", {len(vocabulary.rows):,} of {shape[0]:,} pieces, the others random"
            found.give(name, moved, LOADED, SOURCE + (some if len(vocabulary.rows) < shape[0] else ""))
    elif (tensor := keys.take(name, shape)) is not None:
        found.give(name, tensor, LOADED, SOURCE)


def _tubes(keys: Keys, config: ModelConfig, model: Mirasol, found: Found) -> None:
    """Each tube from the earlier one of its shape, or else the one that differs least in its sides."""
    shapes = [*config.tubes, *([(1, config.patch, config.patch)] if config.patch else [])]
    width = model.config.vit.width
    kernels: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
    for index, shape in enumerate(shapes):
        name = f"video_tubes.projections.{index}"
        weight = keys.take(f"{name}.weight", (width, 3 * math.prod(shape)))
        bias = keys.take(f"{name}.bias", (width,))
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
        found.give(f"{name}.weight", resample(weight, lattice.shape).flatten(1), how, source)
        found.give(f"{name}.bias", bias, LOADED, SOURCE)


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
