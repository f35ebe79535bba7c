"""The tensors of a sharded checkpoint: each process writes its rows, any number of processes reads them again.

``step-<n>.ckpt`` stays one file: it holds everything else, marks in place of the sharded tensors, and the name of the
folder with their rows. It is written last, so a kill at any point leaves the checkpoint from before
(docs/decisions/0068).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error
from mirasol.training.parallel import part_of, rows_of
from mirasol.training.tensor_file import write_tensors
from mirasol.training.transfer import ROWS, rows_published

FOLDER = "mirasol_shards"  # key in the checkpoint: the folder below FOLDERS
MARK = "mirasol_sharded"  # key of what stands in place of a sharded tensor: its name in the folder
FIRST = "first"  # in the header of a file: the number of each tensor's first row

Like = Callable[[str], Tensor | None]  # the parameter with whose rows a tensor of that name goes


def folders_of(checkpoint: Path) -> Path:
    """The folder next to ``checkpoint`` that holds one folder of rows, or two while one is written."""
    return checkpoint.with_name(f"{checkpoint.name}.d")


def new_folder(checkpoint: Path) -> str:
    """The name of a new folder for the rows of ``checkpoint``."""
    folders = folders_of(checkpoint)
    try:
        folders.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{ROWS}{checkpoint.stem.rpartition('-')[2]}-", dir=folders)).name
    except OSError as error:
        raise disk_error(error, folders) or error from error


def remove_others(checkpoint: Path, name: str) -> None:
    """Remove the rows of checkpoints before, and of attempts that were killed."""
    for folder in folders_of(checkpoint).iterdir():
        if folder.name != name:
            shutil.rmtree(folder, ignore_errors=True)


def take_shards(tree: Any, shards: dict[str, DTensor], name: str = "") -> Any:
    """``tree`` with a mark in place of each sharded tensor, which goes into ``shards``."""
    if isinstance(tree, DTensor):
        shards[name] = tree
        return {MARK: name}
    if isinstance(tree, dict):
        return {key: take_shards(value, shards, f"{name}/{key}".removeprefix("/")) for key, value in tree.items()}
    if isinstance(tree, list):
        return [take_shards(value, shards, f"{name}/{number}") for number, value in enumerate(tree)]
    return tree


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows that this process writes: the name of its file, its rows, and the number of each tensor's first one."""

    name: str
    rows: dict[str, Tensor]
    first: dict[str, int]


def part_of_shards(shards: dict[str, DTensor]) -> Part | None:
    """This process' rows of ``shards``; of equal copies of a shard only the first process writes."""
    if not shards:
        return None
    mesh = next(iter(shards.values())).device_mesh
    if any((mesh.get_coordinate() or [])[:-1]):
        return None
    rows = {name: tensor.to_local().detach() for name, tensor in shards.items()}
    rows = {name: part for name, part in rows.items() if part.numel()}
    first = {name: rows_of(shards[name].shape[0], mesh)[0] for name in rows}
    return Part("{:05d}-of-{:05d}.safetensors".format(*part_of(mesh)), rows, first)


def write_part(folder: Path, part: Part) -> None:
    """Write ``part`` into ``folder``, and wait until it is on the disk.

    Raises:
        MirasolError: the folder cannot be written or the disk is full.
    """
    path = folder / part.name
    try:
        with rows_published(path), path.open("wb") as file:
            write_tensors(file, part.rows, {FIRST: json.dumps(part.first)})
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(error, path) or error from error


class Rows:
    """Reads rows from the files in ``folder``.

    Raises:
        MirasolError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.parts: dict[str, list[tuple[int, Any]]] = {}  # first row and slice of each part
        paths = sorted(folder.glob("*.safetensors"))
        count = int(paths[0].stem.rpartition("-")[2]) if paths else 1
        if len(paths) != count:
            raise MirasolError(f"{folder}: holds {len(paths)} of the {count} files of a checkpoint: delete {folder}")
        try:
            for path in paths:
                file = stack.enter_context(safe_open(path, "pt"))
                for name, first in json.loads(file.metadata()[FIRST]).items():
                    self.parts.setdefault(name, []).append((first, file.get_slice(name)))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise MirasolError(f"{path}: damaged ({error}): delete {folder}") from error

    def read(self, name: str, low: int = 0, high: int | None = None) -> Tensor:
        """Rows ``low`` up to ``high`` of a tensor, all by default."""
        found = []
        for first, part in sorted(self.parts[name], key=lambda pair: pair[0]):
            count = part.get_shape()[0]
            start, end = max(low - first, 0), count if high is None else min(high - first, count)
            if start < end:
                found.append(part[start:end])
        return torch.cat(found) if found else self.parts[name][0][1][:0]


def put_shards(checkpoint: dict[str, Any], path: Path, like: Like) -> dict[str, Any]:
    """The checkpoint in ``path`` with tensors in place of marks, and each tensor sharded as ``like`` of its name is.

    Where ``like`` is ``None`` or a whole tensor, the whole tensor is read.

    Raises:
        MirasolError: a file of rows is missing or damaged.
    """
    with contextlib.ExitStack() as stack:
        folder = checkpoint.get(FOLDER)
        rows = None if folder is None else Rows(folders_of(path) / folder, stack)
        placed: dict[str, Any] = _put(checkpoint, rows, like, "")
    return placed


def _put(tree: Any, rows: Rows | None, like: Like, name: str) -> Any:
    if isinstance(tree, dict) and MARK in tree:
        assert rows is not None
        model = like(tree[MARK])
        if not isinstance(model, DTensor):
            return rows.read(tree[MARK])
        part = rows.read(tree[MARK], *rows_of(model.shape[0], model.device_mesh))
        return _sharded(part, model)
    if isinstance(tree, dict):
        return {key: _put(value, rows, like, f"{name}/{key}".removeprefix("/")) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_put(value, rows, like, f"{name}/{number}") for number, value in enumerate(tree)]
    model = like(name) if isinstance(tree, Tensor) else None
    if isinstance(model, DTensor) and model.shape == tree.shape:
        return _sharded(tree[slice(*rows_of(model.shape[0], model.device_mesh))], model)
    return tree


def _sharded(part: Tensor, model: DTensor) -> DTensor:
    part = part.to(model.to_local().device)
    return DTensor.from_local(
        part, model.device_mesh, model.placements, run_check=False, shape=model.shape, stride=model.stride()
    )
