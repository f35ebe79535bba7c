"""A report shows the results of this checkout, not those that git brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirasol.core.files import write_json
from mirasol.evaluation.report.markdown import markdown
from mirasol.evaluation.report.project import read_project

CELL = {"exact_match": 0.971, "ci95": [0.96, 0.98], "chance": 0.2, "n": 900, "clips": 90}
REPORT = {"overall": CELL, "families": {"colour": CELL}, "made_on": {"processor": "Some CPU", "instructions": "AVX2"}}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that was never trained: git brought the report."""
    write_json(tmp_path / "reports/eval.json", REPORT)
    return tmp_path


def test_an_untrained_clone_has_no_score(clone: Path) -> None:
    assert read_project(clone).reports == {}
    assert markdown(clone).startswith("No score yet: run `dvc repro evaluate`.")


def test_the_recorded_run_is_named_as_such(clone: Path) -> None:
    assert "recorded run, not made here: 97.1 % exact match, made on Some CPU, AVX2" in markdown(clone)


def test_an_own_evaluation_is_shown(clone: Path) -> None:
    write_json(clone / "build/reports/eval.json", REPORT)
    project = read_project(clone)
    assert project.reports == {"eval": REPORT} and not project.recorded


def test_times_are_those_of_runs(clone: Path) -> None:
    write_json(clone / "runs/latency.json", {"realtime": {"median": 3.0}})
    assert read_project(clone).reports == {"latency": {"realtime": {"median": 3.0}}}
