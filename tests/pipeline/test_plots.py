"""`dvc plots show` draws the curves that the phases write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from support.scratch import REPOSITORY

from mirasol.pipeline.params.schema import PHASES
from mirasol.training.curves import write_plots

STEPS = range(10, 50, 10)


def curves() -> list[dict[str, object]]:
    val = {"exact_match": 0.5, "n": 3, "families": {"colour": {"exact_match": 0.25, "n": 3}}}
    return [{"step": s, "loss": 1 / s, "lr": 1e-3} | ({"val": val} if s % 20 == 0 else {}) for s in STEPS]


def test_evaluations_are_rows_of_their_own_table(tmp_path: Path) -> None:
    write_plots(tmp_path, curves())
    train, val = (json.loads((tmp_path / "plots" / f"{name}.json").read_text()) for name in ("train", "val"))
    assert [row["step"] for row in train] == list(STEPS)
    assert val == [{"all": 0.5, "colour": 0.25, "step": step} for step in (20, 40)]


def test_each_row_has_every_key(tmp_path: Path) -> None:
    """As DVC demands: it drops a table whose rows differ."""
    write_plots(tmp_path, [{"step": 10, "loss": 1.0}, {"step": 20, "text": 2.0}])
    rows = json.loads((tmp_path / "plots/train.json").read_text())
    assert rows == [{"loss": 1.0, "step": 10, "text": None}, {"loss": None, "step": 20, "text": 2.0}]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project with the plots of the real one and the curves of each phase."""
    plots = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    YAML().dump({"plots": plots}, tmp_path / "dvc.yaml")
    for phase in PHASES:
        write_plots(tmp_path / "build" / phase, curves())
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def test_dvc_draws_every_plot_of_every_phase(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show"], cwd=project, capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stdout + done.stderr
    page = (project / "dvc_plots/index.html").read_text()
    for phase in PHASES:
        for table in ("train", "val"):
            assert re.search(rf'"filename": "[^"]*{phase}/plots/{table}\.json"', page), (phase, table)
