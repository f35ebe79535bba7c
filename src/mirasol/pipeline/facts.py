"""Whose data a folder holds: the report leaves out what only makes sense for others."""

from __future__ import annotations

import json
from pathlib import Path

from mirasol.tasks.registry import ADAPTERS


def data_of(folder: Path) -> dict[str, str]:
    """The ``kind`` of a data folder, ``world``, ``published`` or ``own``, and the name of its ``set``."""
    summary = folder / "import.json"
    name = str(json.loads(summary.read_text(encoding="utf-8")).get("set", "")) if summary.is_file() else ""
    world = not name and (folder / "families.json").is_file()
    return {"kind": "world" if world else "published" if name in ADAPTERS else "own", "set": name}
