"""The section of the report about the paper's ablations: a table and a plot of each, with a verdict per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirasol.evaluation.report.charts import ticks
from mirasol.evaluation.report.html import render
from mirasol.evaluation.report.paper import is_number, key_of, paper_tables, printed
from mirasol.evaluation.report.project import Project


@dataclass(frozen=True)
class Row:
    """One row of reports/ablations/TABLE.json, in per cent and points; ``None`` if not known."""

    name: str
    paper: float | None
    ours: float | None
    ci95: tuple[float, float] | None
    against: str = ""  # the row that it is compared with
    paper_difference: float | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    verdict: str = ""


def ablation_rows(report: Mapping[str, Any]) -> list[Row]:
    """The readable rows of a report of `mirasol ablate`."""
    given = report.get("rows")
    rows = [row for row in given if isinstance(row, Mapping)] if isinstance(given, Sequence) else []
    return [_read(row) for row in rows if row.get("row")]


def _read(row: Mapping[str, Any]) -> Row:
    against = _mapping(row.get("against"))
    ours, ends = _estimate(row.get("score"))
    difference, reach = _estimate(against.get("difference"))
    return Row(
        name=str(row["row"]),
        paper=_figure(row.get("paper")),
        ours=ours,
        ci95=ends,
        against=str(against.get("row") or ""),
        paper_difference=_figure(against.get("paper")),
        difference=difference,
        difference_ci95=reach,
        verdict=str(against.get("verdict") or ""),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _figure(value: object) -> float | None:
    return float(value) if is_number(value) else None


def _estimate(value: object) -> tuple[float | None, tuple[float, float] | None]:
    """Mean and ends of an interval."""
    given = _mapping(value)
    ends = [float(end) for end in given.get("ci95") or () if is_number(end)]
    return _figure(given.get("mean")), (ends[0], ends[1]) if len(ends) == 2 else None


def tables(project: Project) -> dict[str, tuple[Mapping[str, Any], list[Row]]]:
    """Our ablations by the key of their table, in the paper's order, then others."""
    found = {
        _key(report.get("table", name)): (report, rows)
        for name, report in project.ablations.items()
        if (rows := ablation_rows(report))
    }
    known = [_key(table["table"]) for table in paper_tables()["ablations"]]
    return {key: found[key] for key in [*(k for k in known if k in found), *(k for k in found if k not in known)]}


def _key(table: object) -> str:
    return key_of(table).removeprefix("table")


def verdicts(project: Project) -> Counter[str]:
    """How often each verdict occurs in the paper's tables; other tables do not count."""
    known = {_key(table["table"]) for table in paper_tables()["ablations"]}
    found = [row for key, (_, rows) in tables(project).items() if key in known for row in rows]
    return Counter(row.verdict for row in found if row.verdict)


@dataclass(frozen=True)
class Axis:
    """The axis of a plot, in per cent, with round ends around all rows."""

    low: float
    high: float

    @classmethod
    def around(cls, rows: Sequence[Row]) -> Axis:
        values = [v for row in rows for v in (row.paper, row.ours, *(row.ci95 or ())) if v is not None]
        ends = ticks(min(values, default=0.0), max(values, default=1.0))
        return cls(ends[0], ends[-1])

    def place(self, value: float) -> float:
        """Per cent of the axis from its left end."""
        return 100 * (value - self.low) / (self.high - self.low)


def ablations_section(project: Project) -> str:
    """A card for each of the paper's ablations with our rows, if it was run; empty for other data than the world's."""
    found = tables(project)
    if project.own:
        return ""
    known = {_key(table["table"]): table for table in paper_tables()["ablations"]}
    return render(
        "ablations.html",
        cards=[(known.get(key), report, rows, Axis.around(rows)) for key, (report, rows) in found.items()],
        rest=[table for key, table in known.items() if key not in found],
        known=len(known),
        counted=verdicts(project).most_common(),
        recorded=not project.ablations_here,
        tone=tone,
        printed=printed,
    )


def tone(verdict: str) -> str:
    """The style class of a verdict: same direction, opposite, or neither."""
    lowered = verdict.lower()
    if "opposite" in lowered:
        return "bad"
    return "good" if "same" in lowered else "none-seen"
