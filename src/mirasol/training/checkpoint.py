"""Checkpoints: written whole, and resumed only under the configuration that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mirasol.core.code import CHECKPOINT as DECIDING
from mirasol.core.code import code_hash
from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.training.saving import Saving
from mirasol.training.shards import FOLDER, Part, Rows, folders_of, put_shards, remove_others, write_part
from mirasol.training.transfer import publish

FINGERPRINT = "mirasol_fingerprint"  # keys in the checkpoint
FINISHED = "mirasol_finished"  # whether the run was at its end
ANYWAY = "mirasol_resumed_anyway"  # where the run went on under another fingerprint, and what changed


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint file, written to a temporary file and renamed over the old one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Saving | None = None
    ) -> None:
        """Write ``checkpoint`` now, or beside the next steps by the :class:`Saving` in ``storage_options``.

        Raises:
            MirasolError: the folder cannot be written or the disk is full.
        """
        if storage_options is None:
            write_checkpoint(checkpoint, Path(path))
        else:
            storage_options.begin(checkpoint, lambda copied: write_checkpoint(copied, Path(path)))

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Tensors and plain values only; those of a sharded run whole."""
        return put_shards(read_checkpoint(path), Path(path), lambda name: None)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write ``checkpoint``, whole or not at all, and send it to the run's storage, if there is one.

    Raises:
        MirasolError: the disk cannot be written, or the storage refuses.
    """
    with atomic_write(path) as file:
        torch.save(checkpoint, file)
    if FOLDER not in checkpoint:  # rows of a run that was sharded before
        shutil.rmtree(folders_of(path), ignore_errors=True)
    publish(path)


def write_sharded(
    path: Path, rest: dict[str, Any], part: Part | None, folder: str, meet: Callable[[str], None]
) -> None:
    """Write this process' rows, and in the first process, once ``meet`` says that all have, the file that names them.

    Args:
        rest: all but the rows; empty in the other processes.
        part: this process' rows, if it writes any.

    Raises:
        MirasolError: the disk cannot be written.
    """
    if part is not None:
        write_part(folders_of(path) / folder, part)
    meet(folder)
    if rest:
        write_checkpoint(rest | {FOLDER: folder}, path)
        remove_others(path, folder)


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> dict[str, Any]:
    """What one file holds, tensors on the CPU: a checkpoint from elsewhere cannot run code."""
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return found


def fingerprint(settings: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    """Everything that decides the weights of a run, as plain values that survive JSON and ``torch.save``.

    ``settings`` are nested mappings of parameters, ``hashes`` the digests of the input files.
    """
    versions = {"torch": str(torch.__version__), "python": platform.python_version()}
    whole = {"settings": settings, "inputs": hashes, "code": code_hash(DECIDING), "versions": versions}
    plain: dict[str, Any] = json.loads(json.dumps(whole))
    return plain


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The differences between two fingerprints, e.g. ``settings.phase.lr (0.001, now 0.0005)``."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = ((f"{prefix}.{key}".removeprefix("."), old.get(key), new.get(key)) for key in sorted({*old, *new}))
        return [text for key, before, after in pairs for text in differences(before, after, key)]
    return [] if old == new else [f"{prefix} ({_short(old)}, now {_short(new)})"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else text[:12] + "…"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a checkpoint says about its run."""

    step: int
    made_by: dict[str, Any]
    finished: bool
    anyway: list[dict[str, Any]]


def read_facts(path: Path) -> Facts:
    """The facts of the checkpoint at ``path``, without its tensors.

    Raises:
        MirasolError: it cannot be read, or rows of it are missing.
    """
    try:
        # mmap: a few values are needed, not the weights of 3 B parameters
        found = read_checkpoint(path, mapped=True)
        step, made_by = int(found["global_step"]), found[FINGERPRINT]
        with contextlib.ExitStack() as stack:
            if FOLDER in found:
                Rows(folders_of(path) / found[FOLDER], stack)
    except MirasolError:  # rows that are missing
        raise
    except Exception as error:  # a foreign or damaged file fails in many ways
        words = str(error).splitlines()
        raise MirasolError(f"{type(error).__name__}{': ' + words[0][:80] if words else ''}") from None
    return Facts(step, made_by, bool(found.get(FINISHED)), found.get(ANYWAY, []))
