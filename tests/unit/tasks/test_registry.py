"""One registry of data sets: each file of `mirasol.tasks` that declares one is in it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import mirasol.tasks
from mirasol.tasks.base.importer import Adapter
from mirasol.tasks.base.protocol import Protocol
from mirasol.tasks.registry import ADAPTERS, PROTOCOLS


def test_every_declared_set_is_registered_under_its_name() -> None:
    found: dict[type, set[str]] = {Adapter: set(), Protocol: set()}
    for path in Path(str(mirasol.tasks.__path__[0])).glob("*.py"):
        for value in vars(importlib.import_module(f"mirasol.tasks.{path.stem}")).values():
            if isinstance(value, Adapter | Protocol):
                found[type(value)].add(value.name)
    assert (found[Adapter], found[Protocol]) == (set(ADAPTERS), set(PROTOCOLS))
    assert len(PROTOCOLS) == 10 and len(ADAPTERS) == 11


def test_splits_are_ours() -> None:
    for adapter in ADAPTERS.values():
        assert set(adapter.splits.values()) <= {"train", "val", "test"}, adapter.name
        assert set(adapter.renamed) <= set(adapter.files), adapter.name


def test_the_registry_loads_no_numpy() -> None:
    code = "import sys, mirasol.tasks.registry; assert not {'numpy', 'av', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
