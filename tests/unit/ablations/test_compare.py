"""Marks of finished cells, also of those that ran when the unchanged clip was called full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.cell import MARKS
from ablations.compare import modality_ablation, read_marks
from ablations.tables import Cell
from mirasol.data.conditions import Condition


@pytest.mark.parametrize("name", ["full", "unchanged"])
def test_marks_are_read_by_condition(name: str, tmp_path: Path) -> None:
    cells = [Cell((), seed) for seed in (1, 2, 3)]
    for seed, cell in enumerate(cells):
        rows = [
            {"id": f"q{n}", "group": f"g{n}", "family": "colour", name: int(n > seed), "muted": 1, "blanked": 0}
            | {"shuffled": 1}
            for n in range(20)
        ]
        (tmp_path / cell.name).mkdir()
        (tmp_path / cell.name / MARKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    marks = read_marks(tmp_path, cells)
    assert marks.right[Condition.unchanged].sum(axis=1).tolist() == [19, 18, 17]
    about = {"needs": ["video"], "chance": 0.1, "muted": 1.0, "blanked": 0.1, "shuffled": 1.0}
    found = modality_ablation(cells, tmp_path, {"colour": about})["colour"]
    assert json.loads(json.dumps(found))["unchanged"]["mean"] == 90.0
    assert found["blanked"]["found"] == "falls to chance"
