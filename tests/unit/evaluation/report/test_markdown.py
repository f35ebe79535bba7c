"""The report as Markdown for a pull request."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.reporting import finish, write_benchmarks

from mirasol.core.files import write_json
from mirasol.evaluation.report.markdown import markdown


def commit(folder: Path, subject: str) -> None:
    shutil.copytree(folder / "build/reports", folder / "reports", dirs_exist_ok=True)  # as the last stage does
    for words in (("add", "reports"), ("commit", "--quiet", "--message", subject)):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def committed(project: Path) -> Path:
    """A finished project under git."""
    finish(project)
    subprocess.run(["git", "init", "--quiet", str(project)], check=True, capture_output=True)
    commit(project, "first")
    return project


def change(folder: Path, **values: Any) -> dict[str, Any]:
    """Write new values into the score of the family colour."""
    path = folder / "build/reports/eval.json"
    report: dict[str, Any] = json.loads(path.read_text())
    report["families"]["colour"].update(values)
    write_json(path, report)
    return report


def test_a_first_score_has_nothing_to_compare_with(committed: Path) -> None:
    assert "Since" not in markdown(committed)


@pytest.mark.parametrize("again", [False, True])
def test_a_new_score_is_shown_beside_the_last_one(committed: Path, again: bool) -> None:
    """Both before and after it was committed."""
    change(committed, exact_match=0.5, ci95=[0.4, 0.6])
    if again:
        commit(committed, "second")
    text = markdown(committed)
    assert "Since `" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| colour") and "(40 to 60" in line]
    assert line.count("|") == 5


def test_intervals_that_are_apart_are_bold(committed: Path) -> None:
    change(committed, exact_match=0.01, ci95=[0.0, 0.02])
    assert "**-" in markdown(committed)


def test_other_questions_are_not_compared(committed: Path) -> None:
    change(committed, n=1)
    assert "not comparable, other questions were asked" in markdown(committed)


def test_a_report_of_another_version_is_not_compared(committed: Path) -> None:
    now = json.loads((committed / "build/reports/eval.json").read_text())
    write_json(committed / "build/reports/eval.json", {"overall": 3})
    commit(committed, "broken")
    write_json(committed / "build/reports/eval.json", now | {"note": 1})
    assert "not comparable, a report of another version" in markdown(committed)


def test_benchmarks_and_ablations_stand_in_tables(project: Path) -> None:
    text = markdown(write_benchmarks(finish(project)))
    assert "50.42 (Table 1)" in text
    assert "not comparable: it is wups" in text
    assert "Ablations: 1 same direction, 1 opposite" in text
    assert "| 5a | + AR | 43.2 | 70.1 | 68.1 to 72.1 | baseline | +17.1 (+14.1 to +20.1) | same direction |" in text


def test_what_needs_what_stands_in_a_table(project: Path) -> None:
    """Blanked, each of these answers is "red": the first sound, which needs no picture, is marked."""
    text = markdown(finish(project))
    rows = [line for line in text.splitlines() if line.startswith("| first_sound |")]
    assert len(rows) == 2
    assert rows[1].count("**neither**") == 1


def test_a_score_of_before_chunks_were_shuffled_is_shown(project: Path) -> None:
    path = finish(project) / "build/reports/eval.json"
    report = json.loads(path.read_text())
    write_json(path, {key: value for key, value in report.items() if key not in ("shuffled", "matters")})
    text = markdown(project)
    assert "swapped |" in text
    assert "shuffled" not in text
