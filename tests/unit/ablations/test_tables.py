"""The grids as data: the project's are valid and small enough, and one error lists all faults of a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ablations.tables import NO_PAPER, Cell, Grid, cells_of, cut_of, read_switches, read_tables
from mirasol.core.errors import MirasolError
from mirasol.pipeline.params.schema import sections

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def grid() -> Grid:
    return read_tables(ROOT / "ablations/tables.yaml")


def test_every_table_of_the_paper_is_there(grid: Grid) -> None:
    of_paper = [name for name, table in grid.tables.items() if table.source != NO_PAPER]
    assert of_paper == ["4", "5a", "5b", "5c", "5d", "s1a", "s1b"]


def test_three_seeds_of_the_paper_s_tables_are_at_most_75_runs(grid: Grid) -> None:
    assert len(cells_of([table for table in grid.tables.values() if table.source != NO_PAPER], 3)) <= 75


def test_every_change_is_a_key_of_the_parameters(grid: Grid) -> None:
    known = {f"{name}.{key}" for name, section in sections().items() for key in section.keys}
    known |= {f"cell.{name}" for name in read_switches(ROOT / "ablations/cell.yaml")}
    assert {key for table in grid.tables.values() for row in table.rows for key, _ in row.changes} <= known


def test_tables_share_the_cell_of_the_recipe(grid: Grid) -> None:
    with_it = [name for name, table in grid.tables.items() if any(not row.changes for row in table.rows)]
    assert with_it == ["4", "5a", "5b", "5c", "5d", "s1b-scaled"]
    assert len([cell for cell in cells_of(grid.tables.values(), 3) if not cell.changes]) == 3


def test_cells_of_one_cut_stand_together(grid: Grid) -> None:
    cuts = [cut_of(cell) for cell in cells_of(grid.tables.values(), 3)]
    assert sum(a != b for a, b in itertools.pairwise(cuts)) == len(set(cuts)) - 1


def test_the_paper_s_directions_are_those_of_its_figures(grid: Grid) -> None:
    table = grid.tables["5c"]
    assert [table.expected(row) for row in table.rows] == [0, 1, 0, 1]


def test_a_cell_s_name_follows_from_its_changes_and_seed() -> None:
    one = Cell((("model.combiner", "ttm"),), 1)
    assert one.name == Cell((("model.combiner", "ttm"),), 1).name != Cell((("model.combiner", "cls"),), 1).name
    assert [one.name[-3:], Cell((), 2).name] == ["-s1", "base-s2"]


def test_a_cell_s_settings_are_those_of_dvc() -> None:
    cell = Cell((("cell.pretrain", True), ("finetune.mute", 1.0)), 2)
    assert cell.settings == ("finetune.mute=1.0", "training.seed=2", "cell.yaml:pretrain=true")


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(
        "clips: 0\nminutes: 4\ntables:\n  x:\n    rows:\n"
        "    - {name: a, paper: 1, set: {combiner: ttm}}\n"
        "    - {name: b, set: {cell.train: true}, against: c, colour: red, condition: loud}\n"
    )
    with pytest.raises(MirasolError) as error:
        read_tables(path)
    for part in (
        "`clips` is 0",
        "row 1: `set`",
        "cell.train",
        "against 'c'",
        "unknown colour",
        "`paper` is None",
        "`condition` is 'loud'",
    ):
        assert part in str(error.value)


def test_switches_are_yes_or_no(tmp_path: Path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text("pretrain: 1\npermute: false\n")
    with pytest.raises(MirasolError, match="each true or false"):
        read_switches(path)
