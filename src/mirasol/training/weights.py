"""A trained model at rest: ``weights.safetensors`` and ``config.json`` in one folder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file, write_json
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import INIT
from mirasol.training.parallel import whole
from mirasol.training.tensor_file import header_of, write_tensor

WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
MAPPED_BYTES = 1 << 30  # from here on weights are not copied into memory (decision 0057)


def save_weights(folder: str | Path, model: Mirasol, *, leader: bool = True) -> None:
    """Write ``model`` into ``folder``, each file whole or not at all; equal weights give equal bytes.

    The processes of a sharded model all call it: the ``leader`` writes one whole tensor after the other.

    Raises:
        MirasolError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    state = model.state_dict()
    header, names = header_of(state)
    if not leader:
        for name in names:
            whole(state[name])
        return
    write_json(folder / CONFIG, model.config.to_dict())
    with atomic_write(folder / WEIGHTS) as file:
        file.write(header)
        for name in names:
            write_tensor(file, whole(state[name]))


def read_config(folder: str | Path) -> ModelConfig:
    """The sizes of the model in ``folder``.

    Raises:
        MirasolError: the file is missing or not that of a model.
    """
    path = Path(folder) / CONFIG
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file; a trained model has one: run the stage that trains it") from None
    except (ValueError, TypeError) as error:
        raise MirasolError(f"{path}: not the sizes of a model of this version ({error}); train it again") from error


def load_model(folder: str | Path, config: ModelConfig | None = None) -> Mirasol:
    """The model in ``folder``, on the CPU and in training mode; with ``config`` in place of its own settings.

    Weights of 1 GiB or more stay mapped from their file until they change: the system may drop and reread them.

    Raises:
        MirasolError: a file is missing, damaged, or the weights do not fit ``config.json``.
    """
    path = Path(folder) / WEIGHTS
    model = Mirasol(config or read_config(folder))
    try:
        model.load_state_dict(load_file(path), assign=path.stat().st_size >= MAPPED_BYTES)
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file; run the stage that trains it") from None
    except (SafetensorError, RuntimeError) as error:
        raise MirasolError(
            f"{path}: damaged, or not the weights of the model in {CONFIG} ({error}); train it again"
        ) from error
    return model


def pinned(folder: str | Path) -> str:
    """``FOLDER@HASH``: these weights and no others (`training.init`)."""
    return f"{folder}@{sha256_file(Path(folder) / WEIGHTS)[:12]}"


def find_pinned(value: str) -> Path | None:
    """The folder that `training.init` names, ``None`` if it is empty.

    DVC compares the value: other weights need another hash, so that a phase does not count as up to date.

    Raises:
        MirasolError: no such weights, or the folder now holds others.
    """
    if not value:
        return None
    match = INIT.fullmatch(value)
    if match is None:
        raise MirasolError(f"training.init is {value!r}, expected FOLDER@HASH as `mirasol weights import` prints it")
    path = Path(match["folder"]) / WEIGHTS
    if not path.is_file():
        raise MirasolError(
            f"training.init: {path}: no such file; make it with `mirasol weights import`, get it with `dvc pull`, "
            'or set training.init to "" to start from random weights'
        )
    found = sha256_file(path)
    if not found.startswith(match["hash"]):
        raise MirasolError(
            f"training.init is {value}, but {path} holds other weights: to start from these set it to "
            f"{match['folder']}@{found[:12]}"
        )
    return path.parent
