"""Checkpoints that are written whole and resumed only by the configuration that made them."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mirasol.core.code import CHECKPOINT as DECIDING
from mirasol.core.code import code_hash
from mirasol.core.files import atomic_write

CHECKPOINT = "last.ckpt"
FINGERPRINT = "mirasol_fingerprint"  # key in the checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint file, written beside the old one and renamed over it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint``; the file at ``path`` is the old one until the new one is on the disk.

        Raises:
            MirasolError: the folder cannot be written or the disk is full.
        """
        with atomic_write(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Tensors and plain values only: a checkpoint from elsewhere cannot run code."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return loaded


def fingerprint(settings: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    """Everything that a run's weights follow from, as plain values that survive JSON and ``torch.save``.

    ``settings`` are nested mappings of parameters, ``hashes`` the digests of the input files.
    """
    versions = {"torch": str(torch.__version__), "python": platform.python_version()}
    whole = {
        "settings": settings,
        "inputs": hashes,
        "code": code_hash(DECIDING),
        "versions": versions,
    }
    plain: dict[str, Any] = json.loads(json.dumps(whole))
    return plain


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """What differs between two fingerprints, e.g. ``settings.phase.lr (0.001, now 0.0005)``."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            found += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [f"{prefix} ({_short(old)}, now {_short(new)})"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else text[:12] + "…"


def resumable_step(path: Path, expected: dict[str, Any]) -> tuple[int | None, list[str]]:
    """The step that the checkpoint at ``path`` was written at, if ``expected`` made it.

    Returns:
        the step, or ``None`` with the reasons why the checkpoint does not count (none: there is no file).
    """
    if not path.exists():
        return None, []
    try:
        # mmap: a look at two values must not read the weights of 3 B parameters
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, made_by = int(found["global_step"]), found[FINGERPRINT]
    except Exception as error:  # a foreign or damaged file fails in many ways, all of which mean "start anew"
        words = str(error).splitlines()
        return None, [f"it cannot be read ({type(error).__name__}{': ' + words[0][:80] if words else ''})"]
    changed = differences(made_by, expected)
    return (None, changed) if changed else (step, [])
