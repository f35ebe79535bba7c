"""The section of the report about the paper's ablations: a table and a plot of each, with a verdict per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirasol.evaluation.report_charts import number, ticks
from mirasol.evaluation.report_data import Project
from mirasol.evaluation.report_html import missing, section, text
from mirasol.evaluation.report_paper import is_number, key_of, paper_row, paper_tables

COMMAND = "mirasol ablate TABLE"


@dataclass(frozen=True)
class Row:
    """One row of an ablation, in points (per cent); what is not known is ``None``."""

    name: str
    paper: float | None
    ours: float | None
    ci95: tuple[float, float] | None
    verdict: str


def ablation_rows(report: Mapping[str, Any]) -> list[Row]:
    """The rows of a reports/ablations/TABLE.json that can be read.

    The paper's figures are as printed, in points. Ours are shares where none is larger than 1, or where the file's
    ``unit`` is "share".
    """
    given = report.get("rows")
    rows = [row for row in given if isinstance(row, Mapping)] if isinstance(given, Sequence) else []
    ours = [row.get("ours") for row in rows] + [end for row in rows for end in _ends(row)]
    small = all(abs(value) <= 1 for value in ours if is_number(value))
    scale = 100 if report.get("unit", "share" if small else "points") == "share" else 1
    return [
        Row(
            str(row.get("name", "")),
            float(row["paper"]) if is_number(row.get("paper")) else None,
            scale * float(row["ours"]) if is_number(row.get("ours")) else None,
            (scale * ends[0], scale * ends[1]) if len(ends := _ends(row)) == 2 else None,
            str(row.get("verdict") or ""),
        )
        for row in rows
    ]


def _ends(row: Mapping[str, Any]) -> list[float]:
    ends = row.get("ci95")
    return [float(end) for end in ends if is_number(end)] if isinstance(ends, list) else []


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
    """How often each verdict stands in the tables."""
    return Counter(row.verdict for _, rows in tables(project).values() for row in rows if row.verdict)


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
        f"<span>from {number(low)} to {number(high)}, per cent or points</span></p>"
    )
    return f'<div class="card"><h3>{heading}</h3>{legend}<div class="effects">{body}</div></div>'


def _axis(rows: Sequence[Row]) -> tuple[float, float]:
    """Round ends of the axis, around all that is drawn. 0 is among them where there are differences."""
    values = [v for row in rows for v in (row.paper, row.ours, *(row.ci95 or ())) if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low <= 0 or high < 20:  # differences, not accuracies
        low, high = min(low, 0.0), max(high, 0.0)
    ends = ticks(low, high)
    return ends[0], ends[-1]


def _row(row: Row, low: float, high: float) -> str:
    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    marks = f'<i class="zero" style="left:{place(0):.2f}%"></i>' if low < 0 < high else ""
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
        f"<span>ours <b>{ours}</b>{interval}</span><span>paper <b>{paper}</b></span></div>"
    )


def tone(verdict: str) -> str:
    """The style class of a verdict: same direction, opposite, or neither."""
    lowered = verdict.lower()
    if "opposite" in lowered:
        return "bad"
    return "good" if "same" in lowered else "none-seen"
