"""The paper's ablations as data: ablations/tables.yaml, rows, the cells they are made of, what a cell changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mirasol.core.errors import MirasolError

TABLES = Path("ablations", "tables.yaml")
SWITCHES = ("pretrain", "permute")  # of cell.yaml
CHANCE = "chance"  # what a row is held against that is no other row
NO_PAPER = "no table of the paper"  # the source of a table whose verdicts are not counted
SAME = 0.1  # points: the paper's rows that differ by less do not differ
ROW_KEYS = {"name", "paper", "set", "against", "condition"}

Value = str | int | float | bool


@dataclass(frozen=True)
class Cell:
    """A model to train: what it changes about the recipe, and its seed. Rows that change the same share it."""

    changes: tuple[tuple[str, Value], ...]
    seed: int

    @property
    def name(self) -> str:
        """Equal changes and seed give equal names: ``base-s1``, ``4f2a90c1-s2``."""
        told = json.dumps(self.changes)
        digest = hashlib.sha256(told.encode()).hexdigest()[:8] if self.changes else "base"
        return f"{digest}-s{self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The changes as `dvc exp run --set-param` takes them."""
        changes = [(key, value) for key, value in self.changes if not key.startswith("cell.")]
        switches = [(f"cell.yaml:{key[5:]}", value) for key, value in self.changes if key.startswith("cell.")]
        return tuple(f"{key}={_yaml(value)}" for key, value in [*changes, ("training.seed", self.seed), *switches])


@dataclass(frozen=True)
class Row:
    """A row of a table: the paper's figure, what it means here, and the row that it is held against."""

    name: str
    changes: tuple[tuple[str, Value], ...]
    paper: float | None = None
    against: str | None = None
    condition: str = "full"

    def cells(self, seeds: int) -> list[Cell]:
        return [Cell(self.changes, seed) for seed in range(1, seeds + 1)]


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    title: str
    source: str
    note: str
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def expected(self, row: Row) -> int:
        """What the paper saw of ``row`` against its other: 1 better, -1 worse, 0 no different."""
        if row.against == CHANCE or row.against is None:
            return 0
        paper, other = row.paper, self.row(row.against).paper
        assert paper is not None and other is not None
        return 0 if abs(paper - other) < SAME else 1 if paper > other else -1


def _yaml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_switches(path: Path) -> dict[str, bool]:
    """What cell.yaml says.

    Raises:
        MirasolError: it is missing, or says something else than yes or no for each switch.
    """
    tree = _load(path)
    if set(tree) != set(SWITCHES) or not all(isinstance(value, bool) for value in tree.values()):
        raise MirasolError(f"{path}: expected {' and '.join(SWITCHES)}, each true or false; got {tree}")
    return dict(tree)


@dataclass(frozen=True)
class Grid:
    """All that ablations/tables.yaml says."""

    clips: int  # of the hard world, to train on
    minutes: float  # of one core, a cell, as long as none has been timed
    tables: dict[str, Table]


def read_tables(path: Path = TABLES) -> Grid:
    """The tables by name, and what they share.

    Raises:
        MirasolError: the file is missing or broken; every fault of it is named.
    """
    tree = _load(path)
    faults: list[str] = []
    tables: dict[str, Table] = {}
    for name, entry in (tree.get("tables") or {}).items():
        rows = []
        for number, row in enumerate(entry.get("rows") or (), 1):
            where = f"table {name}, row {number}"
            if unknown := set(row) - ROW_KEYS:
                faults.append(f"{where}: unknown {', '.join(sorted(unknown))}, expected {', '.join(sorted(ROW_KEYS))}")
            rows.append(_row(row, where, faults))
        names = [row.name for row in rows]
        for row in rows:
            if row.against is not None and row.against not in (*names, CHANCE):
                faults.append(f"table {name}, row {row.name}: against {row.against!r}, which is none of {names}")
        if len(set(names)) < len(names):
            faults.append(f"table {name}: two rows of one name")
        text = {key: str(entry.get(key, "")).strip() for key in ("title", "source", "note")}
        tables[str(name)] = Table(str(name), **text, rows=tuple(rows))
    if not tables:
        faults.append("no tables")
    for key in ("clips", "minutes"):
        if not isinstance(tree.get(key), int | float) or tree[key] <= 0:
            faults.append(f"`{key}` is {tree.get(key)!r}, expected a number above 0")
    if faults:
        raise MirasolError(f"{path}: " + "; ".join(faults))
    return Grid(int(tree["clips"]), float(tree["minutes"]), tables)


def _row(row: dict[str, Any], where: str, faults: list[str]) -> Row:
    changes = row.get("set")
    if not isinstance(changes, dict) or not all(str(key).count(".") == 1 for key in changes):
        faults.append(f"{where}: `set` is {changes!r}, expected a mapping of section.key to values")
        changes = {}
    if bad := [key for key in changes if key.startswith("cell.") and key[5:] not in SWITCHES]:
        faults.append(f"{where}: {', '.join(bad)}: cell.yaml has {', '.join(SWITCHES)}")
    if row.get("against") not in (None, CHANCE) and not isinstance(row.get("paper"), int | float):
        faults.append(f"{where}: `paper` is {row.get('paper')!r}, expected the paper's figure")
    return Row(
        name=str(row.get("name", where)),
        changes=tuple(sorted(changes.items())),
        paper=row.get("paper"),
        against=row.get("against"),
        condition=row.get("condition", "full"),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MirasolError(f"{path}: no such file; run in the project's folder (the one with params.yaml)") from None
    except YAMLError as error:
        raise MirasolError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise MirasolError(f"{path}: expected a mapping")
    return tree


def cells_of(tables: Iterable[Table], seeds: int) -> list[Cell]:
    """The cells of the tables, each once: all of a data cut together, and of these the first seeds first."""
    cells = {cell: None for table in tables for row in table.rows for cell in row.cells(seeds)}
    return sorted(cells, key=lambda cell: (cut_of(cell), cell.seed))


def cut_of(cell: Cell) -> tuple[tuple[str, Value], ...]:
    """What the cell changes about how clips are cut: cells of one cut share their shards."""
    return tuple((key, value) for key, value in cell.changes if key.startswith("clip."))
