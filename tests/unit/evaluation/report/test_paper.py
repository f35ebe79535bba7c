"""The paper's tables next to ours: its figures as printed, and a flag on figures that are not comparable."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.reporting import ABLATIONS, BENCHMARKS, finish, page_of, write_benchmarks
from support.scratch import REPOSITORY

from ablations.cell import MARKS
from ablations.compare import compare
from ablations.tables import Row as AblationRow
from ablations.tables import Table
from mirasol.core.files import write_json
from mirasol.evaluation.report.ablations import ablation_rows, tone
from mirasol.evaluation.report.paper import paper_tables, printed, results
from mirasol.evaluation.report.project import Project, read_project

SHARED = Path(os.environ.get("MIRASOL_SHARED", REPOSITORY.parent / "shared"))
TABLES = [*paper_tables()["benchmarks"], *paper_tables()["ablations"]]


def project_with(**parts: Any) -> Project:
    return Project(folder=Path(), **parts)


def by_name(project: Project) -> dict[str, Any]:
    return {result.name: result for result in results(project)}


@pytest.mark.skipif(not (SHARED / "paper").is_dir(), reason=f"no paper in {SHARED}: set MIRASOL_SHARED")
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["table"])
def test_figures_are_those_of_the_paper(table: dict[str, Any]) -> None:
    text = "\n".join((SHARED / "paper" / name).read_text("utf-8") for name in ("paper.txt", "supplement.txt"))
    figures = set(re.findall(r"\d\d\.\d+", text))
    assert [row for row in table["rows"] if not {printed(row[1]), f"{row[1]:.2f}"} & figures] == []


def test_every_published_set_with_a_table_stands_in_one() -> None:
    sets = [name for table in paper_tables()["benchmarks"] for name in table["sets"]]
    assert sorted(sets) == [
        "activitynet-qa", "epic-sounds", "kinetics-sounds", "msrvtt-qa", "nextqa-mc", "nextqa-oe", "vggsound",
    ]  # fmt: skip


def test_both_forms_of_a_benchmark_report_read_alike() -> None:
    cell = {"value": 0.4, "ci95": [0.3, 0.5], "n": 10}
    headline = {"benchmark": "msrvtt-qa", "headline": {"metric": "exact_match", **cell}}
    overall = {"benchmark": "msrvtt-qa", "metric": "exact_match", "overall": {"exact_match": 0.4, **cell}}
    first, second = (results(project_with(benchmarks={"msrvtt-qa": report})) for report in (headline, overall))
    assert first == second
    assert first[0].reasons == ()


def test_per_cent_and_shares_read_alike() -> None:
    reports = [{"headline": {"value": v, "ci95": [v - d, v + d]}} for v, d in ((0.5, 0.125), (50, 12.5))]
    first, second = (results(project_with(benchmarks={"a": report})) for report in reports)
    assert first == second


def test_what_must_not_be_compared_says_why() -> None:
    found = by_name(project_with(benchmarks=BENCHMARKS))
    assert found["msrvtt-qa"].reasons == ()
    assert found["nextqa-oe"].reasons == ("it is wups, the table gives accuracy",)
    assert found["vggsound"].reasons == ("100 questions of the 15,446 that were published",)


def test_the_val_split_and_a_part_of_the_classes_are_not_comparable() -> None:
    asked = {"n": 10, "published": 10, "split": "val"}
    headline = {"value": 0.4, "ci95": [0.3, 0.5], "n": 10, "metric": "top1"}
    reports = {
        "activitynet-qa": {"headline": headline, "questions": asked},
        "epic-sounds": {"headline": headline, "questions": asked | {"split": "validation"}},
        "vggsound": {"headline": headline, "classes": {"n": 10, "published": 309}},
    }
    found = by_name(project_with(benchmarks=reports))
    assert found["activitynet-qa"].reasons == ("scored on the val split",)
    assert found["epic-sounds"].reasons == ()
    assert found["vggsound"].reasons == ("10 of 309 classes",)


def test_no_list_of_kinetics_sounds_is_the_papers(project: Path) -> None:
    cell = {"metric": "top1", "value": 0.5, "ci95": [0.4, 0.6], "n": 1958}
    (finish(project) / "reports/benchmarks").mkdir(parents=True)
    write_json(project / "reports/benchmarks/kinetics-sounds.json", {"headline": cell})
    page, _ = page_of(project)
    assert "another list of classes and clips: the paper's has 36 classes" in page.text


@pytest.mark.parametrize("broken", [{}, {"headline": 3}, {"headline": {"value": "a"}}, {"headline": {"value": None}}])
def test_a_broken_benchmark_report_is_passed_over(broken: dict[str, Any]) -> None:
    assert results(project_with(benchmarks={"msrvtt-qa": broken})) == []


def test_a_run_on_a_published_set_stands_in_its_table() -> None:
    cell = {"exact_match": 0.25, "ci95": [0.2, 0.3], "n": 8000}
    reports = {"eval": {"overall": cell, "split": "test", "missing": [{}]}}
    (result,) = results(project_with(reports=reports, imported={"set": "activitynet-qa"}))
    assert (result.name, result.value, result.missing, result.reasons) == ("activitynet-qa", 0.25, 1, ())


@pytest.mark.parametrize(
    ("imported", "split", "asked", "reasons"),
    [
        ({"set": "activitynet-qa"}, "val", 18_000, ("scored on the val split",)),
        ({"set": "activitynet-qa"}, "test", 80, ("80 questions of the 8,000 that were published",)),
        ({"set": "epic-sounds", "used_as": {"validation": "test"}}, "test", 8_035, ()),
        ({"set": "nextqa-mc"}, "test", 8_564, ("answers were written freely, the table's were chosen",)),
    ],
)
def test_a_run_on_other_questions_or_another_task_is_not_comparable(
    imported: dict[str, Any], split: str, asked: int, reasons: tuple[str, ...]
) -> None:
    reports = {"eval": {"overall": {"exact_match": 0.25, "ci95": [0.2, 0.3], "n": asked}, "split": split}}
    (result,) = results(project_with(reports=reports, imported=imported))
    assert result.reasons == reasons


def test_a_run_on_the_world_is_in_no_table(project: Path) -> None:
    page, _ = page_of(finish(project))
    assert results(read_project(project)) == []
    assert page.text.count("not scored on it: this run is on the built-in world") == 6
    assert page.classes.count("flag") == 6


def test_the_page_shows_ours_beside_the_paper(project: Path) -> None:
    page, _ = page_of(write_benchmarks(finish(project)))
    assert "50.42" in page.text
    assert "41.2 %" in page.text
    assert "40.1 to 42.3" in page.text
    assert "the paper has no figure for it" in page.text  # MSVD-QA
    assert "72,821 questions, 1 missing (counted wrong)" in page.text


@pytest.mark.parametrize("broken", [{"rows": 3}, {"rows": [3, {}]}, {"rows": [{"row": "a", "score": {"ci95": [1]}}]}])
def test_a_broken_ablation_never_breaks_the_page(project: Path, broken: dict[str, Any]) -> None:
    finish(project)
    (project / "reports/ablations").mkdir(parents=True)
    write_json(project / "reports/ablations/5a.json", broken)
    page, text = page_of(project)
    assert "ablations" in page.ids
    assert "cannot be shown" not in text


def test_rows_are_read_as_mirasol_ablate_writes_them(tmp_path: Path) -> None:
    marks = {"1": [1, 1, 1, 0], "2": [0, 1, 0, 0]}
    better, base = (("finetune.lr", 0.1),), ()
    for changes, given in ((better, marks["1"]), (base, marks["2"])):
        for cell in AblationRow("", changes).cells(3):
            (tmp_path / cell.name).mkdir()
            write_json(tmp_path / cell.name / "cell.json", {"parameters": 1, "wall": 1, "commit": "c"})
            rows = [{"id": f"q{i}", "group": f"g{i}", "family": "f", "full": m} for i, m in enumerate(given)]
            (tmp_path / cell.name / MARKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = Table(
        "5a", "", "", "", (AblationRow("baseline", base, 41.5), AblationRow("+ AR", better, 43.2, against="baseline"))
    )
    baseline, row = ablation_rows({"rows": compare(table, 3, tmp_path, {})})
    assert (baseline.ours, baseline.verdict, baseline.difference) == (25.0, "", None)
    assert (row.paper, row.ours, row.against, row.paper_difference, row.difference) == (
        43.2,
        75.0,
        "baseline",
        1.7,
        50.0,
    )
    assert row.verdict in ("same direction", "no difference seen")


def test_the_page_shows_verdicts_and_what_was_not_run(project: Path) -> None:
    page, text = page_of(write_benchmarks(finish(project)))
    assert page.classes.count("effect") == sum(len(table["rows"]) for table in ABLATIONS.values())
    assert "6 of 7 not run yet" in page.text
    assert "<b>1</b> same direction, <b>1</b> opposite" in text
    assert "+ <b>" in page.text


@pytest.mark.parametrize(
    ("verdict", "style"), [("same direction", "good"), ("opposite", "bad"), ("no difference seen", "none-seen")]
)
def test_verdicts_have_their_colours(verdict: str, style: str) -> None:
    assert tone(verdict) == style
