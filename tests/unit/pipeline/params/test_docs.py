"""docs/params.md equals the schema."""

from __future__ import annotations

from pathlib import Path

from mirasol.pipeline.params.docs import render

ROOT = Path(__file__).parents[4]


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    assert page == render(), "run `mirasol params docs` and commit docs/params.md"


def test_tables_have_one_bar_per_column() -> None:
    rows = [line for line in render().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
