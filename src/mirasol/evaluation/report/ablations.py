"""The section of the report about the paper's ablations: a table and a plot of each, with a verdict per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirasol.evaluation.report.charts import number, ticks
from mirasol.evaluation.report.html import missing, section, text
from mirasol.evaluation.report.paper import is_number, key_of, paper_row, paper_tables
from mirasol.evaluation.report.project import Project

COMMAND = "mirasol ablate TABLE"


@dataclass(frozen=True)
class Row:
    """One row of reports/ablations/TABLE.json, in per cent and points; what is not known is ``None``."""

    name: str
    paper: float | None
    ours: float | None
    ci95: tuple[float, float] | None
    against: str = ""  # the row that it is held against, and what came of it
    paper_difference: float | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    verdict: str = ""


def ablation_rows(report: Mapping[str, Any]) -> list[Row]:
    """The rows of a report of `mirasol ablate` that can be read."""
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
    told = _mapping(value)
    ends = [float(end) for end in told.get("ci95") or () if is_number(end)]
    return _figure(told.get("mean")), (ends[0], ends[1]) if len(ends) == 2 else None


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
    """How often each verdict stands in the paper's tables; tables that are not the paper's do not count."""
    known = {_key(table["table"]) for table in paper_tables()["ablations"]}
    found = [row for key, (_, rows) in tables(project).items() if key in known for row in rows]
    return Counter(row.verdict for row in found if row.verdict)


def ablations_section(project: Project) -> str:
    """A card for each of the paper's ablations, with our rows beside it where it was run."""
    found = tables(project)
    known = {_key(table["table"]): table for table in paper_tables()["ablations"]}
    cards = [_card(_heading(known.get(key), report), rows) for key, (report, rows) in found.items()]
    grid = f'<div class="grid wide">{"".join(cards)}</div>' if cards else ""
    rest = [table for key, table in known.items() if key not in found]
    if rest:
        state = "not run yet" if not found else f"{len(rest)} of {len(known)} not run yet"
        grid += missing("The paper's ablations", COMMAND, state)
        parts = "".join(_paper_only(table) for table in rest)
        grid += f'<div class="params">{parts}</div>'
    lead = (
        "The paper's tables of what its ideas are worth. Ours are small models on a harder built-in world, so the "
        "figures are not comparable: what is compared is the direction."
    )
    if counted := verdicts(project):
        lead += " " + ", ".join(f"<b>{n}</b> {text(verdict)}" for verdict, n in counted.most_common()) + "."
    return section("ablations", "The paper's ideas, one by one", lead, grid)


def _heading(table: Mapping[str, Any] | None, report: Mapping[str, Any]) -> str:
    if table is None:
        return text(report.get("title") or f"Table {report.get('table', '')}")
    return f"{text(table['title'])}<small>Table {text(table['table'])}</small>"


def _paper_only(table: Mapping[str, Any]) -> str:
    rows = "".join(paper_row(name, value) for name, value in table["rows"])
    return (
        f"<details><summary>{text(table['title'])}, Table {text(table['table'])}</summary>"
        f'<table class="pairs"><tbody>{rows}</tbody></table></details>'
    )


def _card(heading: str, rows: Sequence[Row]) -> str:
    low, high = _axis(rows)
    body = "".join(_row(row, low, high) for row in rows)
    legend = (
        '<p class="legend"><span><i class="dot"></i>ours, 95 % interval</span><span><i class="diamond"></i>paper</span>'
        f"<span>from {number(low)} to {number(high)} %</span></p>"
    )
    return f'<div class="card"><h3>{heading}</h3>{legend}<div class="effects">{body}</div></div>'


def _axis(rows: Sequence[Row]) -> tuple[float, float]:
    """Round ends of the axis, around all that is drawn."""
    values = [v for row in rows for v in (row.paper, row.ours, *(row.ci95 or ())) if v is not None]
    ends = ticks(min(values, default=0.0), max(values, default=1.0))
    return ends[0], ends[-1]


def _row(row: Row, low: float, high: float) -> str:
    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    marks = ""
    if row.ci95:
        left, right = place(row.ci95[0]), place(row.ci95[1])
        marks += f'<i class="range" style="left:{left:.2f}%;width:{max(right - left, 0.4):.2f}%"></i>'
    if row.paper is not None:
        marks += f'<i class="diamond" style="left:{place(row.paper):.2f}%"></i>'
    if row.ours is not None:
        marks += f'<i class="dot" style="left:{place(row.ours):.2f}%"></i>'
    ours = "–" if row.ours is None else number(row.ours)
    interval = f" <small>{number(row.ci95[0])} to {number(row.ci95[1])}</small>" if row.ci95 else ""
    paper = "–" if row.paper is None else number(row.paper)
    verdict = f'<em class="verdict {tone(row.verdict)}">{text(row.verdict)}</em>' if row.verdict else ""
    return (
        f'<div class="effect"><span class="name">{text(row.name)}</span>{verdict}'
        f'<span class="axis" aria-hidden="true">{marks}</span>'
        f"<span>ours <b>{ours}</b>{interval}</span><span>paper <b>{paper}</b></span>{_held_against(row)}</div>"
    )


def _held_against(row: Row) -> str:
    if row.difference is None:
        return ""
    ends = f" ({signed(row.difference_ci95[0])} to {signed(row.difference_ci95[1])})" if row.difference_ci95 else ""
    paper = "" if row.paper_difference is None else f"; paper {signed(row.paper_difference)}"
    return f"<small>against {text(row.against)}: {signed(row.difference)}{ends}{paper}</small>"


def signed(value: float) -> str:
    """A difference in points, with its sign."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def tone(verdict: str) -> str:
    """The style class of a verdict: same direction, opposite, or neither."""
    lowered = verdict.lower()
    if "opposite" in lowered:
        return "bad"
    return "good" if "same" in lowered else "none-seen"
