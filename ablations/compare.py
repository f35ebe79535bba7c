"""From the cells of a table to what it says: scores with intervals, a verdict per row, a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.cell import MARKS
from ablations.tables import CHANCE, Cell, Row, Table
from mirasol.core.files import atomic_write
from mirasol.tasks.scoring.ablation_statistics import Estimate, Floats, estimate, verdict
from mirasol.tasks.scoring.matters import Share, judge


@dataclass(frozen=True)
class Marks:
    """The marks of a row's cells: [seeds, questions], the clip and the family of each question."""

    right: dict[str, Floats]  # by condition
    groups: NDArray[np.int64]
    families: list[str]
    ids: list[str]


def read_marks(folder: Path, cells: list[Cell]) -> Marks:
    """The marks of the same questions by cells of several seeds."""
    seeds = [[json.loads(line) for line in (folder / c.name / MARKS).read_text().splitlines()] for c in cells]
    first = seeds[0]
    conditions = [key for key in first[0] if key not in ("id", "group", "family")]
    ids = [row["id"] for row in first]
    assert all([row["id"] for row in rows] == ids for rows in seeds), "cells of one world are asked the same"
    _, groups = np.unique([row["group"] for row in first], return_inverse=True)
    right = {c: np.array([[row[c] for row in rows] for rows in seeds], np.float64) for c in conditions}
    return Marks(right, groups, [row["family"] for row in first], ids)


def compare(table: Table, seeds: int, folder: Path, families: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table: scores by seed, interval, and how each differs from the row that it is held against.

    Args:
        folder: of the finished cells.
        families: families.json of the world, for rows that are held against chance.
    """
    marks: dict[str, Marks] = {row.name: read_marks(folder, row.cells(seeds)) for row in table.rows}
    out = []
    for row in table.rows:
        mine = marks[row.name]
        right = mine.right[row.condition]
        reports = [json.loads((folder / c.name / "cell.json").read_text()) for c in row.cells(seeds)]
        entry: dict[str, Any] = {
            "row": row.name,
            "paper": row.paper,
            "changes": dict(row.changes),
            "cells": [cell.name for cell in row.cells(seeds)],
            "condition": row.condition,
            "score": told(_as_share(estimate(right, mine.groups))),
            "families": {f: _share(right[:, [g == f for g in mine.families]]) for f in sorted(set(mine.families))},
            "parameters": reports[0]["parameters"],
            "seconds": [report["wall"] for report in reports],
            "commits": sorted({report["commit"] for report in reports}),
        }
        if row.against is not None:
            entry["against"] = _difference(table, row, marks, families)
        out.append(entry)
    return out


def _difference(
    table: Table, row: Row, marks: Mapping[str, Marks], families: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    assert row.against is not None
    mine = marks[row.name]
    right = mine.right[row.condition]
    if row.against == CHANCE:
        other = np.array([[families[family]["chance"] for family in mine.families]])
        paper = None
    else:
        reference = table.row(row.against)
        other = marks[reference.name].right[reference.condition]
        paper = round((row.paper or 0) - (reference.paper or 0), 2)
    found, expected = estimate(right - other, mine.groups), table.expected(row)
    return {
        "row": row.against,
        "paper": paper,
        "expected": {1: "better", -1: "worse", 0: "no different"}[expected],
        "difference": told(found),
        "verdict": verdict(found, expected),
    }


def _as_share(found: Estimate) -> Estimate:
    """A score lies between none and all: Student's interval knows nothing of that."""
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def told(found: Estimate) -> dict[str, Any]:
    """An estimate in percent, as plain values."""
    return {
        "mean": _percent(found.mean),
        "ci95": [_percent(found.low), _percent(found.high)],
        "by_seed": [_percent(value) for value in found.by_seed],
    }


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _share(right: Floats) -> float:
    return _percent(float(right.mean()))


CHECKED = ("muted", "blanked", "shuffled")


def matters(cells: list[Cell], folder: Path, families: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Whether each question family needs what it is made to need: :func:`mirasol.tasks.scoring.matters.judge`."""
    marks = read_marks(folder, cells)
    out: dict[str, Any] = {}
    for family, about in families.items():
        where = np.array([f == family for f in marks.families])
        if not where.any():
            continue
        _, groups = np.unique(marks.groups[where], return_inverse=True)

        def of(condition: str, where: NDArray[np.bool_] = where, groups: NDArray[np.int64] = groups) -> Estimate:
            return estimate(marks.right[condition][:, where], groups)

        full = of("full")
        entry: dict[str, Any] = {"needs": list(about["needs"]), "chance": about["chance"], "full": told(full)}
        whole = Share(full.mean, full.low, about["chance"])
        for condition in CHECKED:
            cell = of(condition)
            finding = judge(whole, Share(cell.mean, cell.low, about[condition]))
            entry[condition] = told(cell) | {"chance": about[condition]} | finding._asdict()
        out[family] = entry
    return out


def draw(table: Table, rows: list[dict[str, Any]], path: Path) -> None:
    """The picture of a table: each seed a dot, the mean with its interval, the paper's figure and the verdict."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(rows):
        score = row["score"]
        low, high = score["ci95"]
        axes.plot([low, high], [at, at], color="#2b6cb0", linewidth=6, alpha=0.25, solid_capstyle="butt")
        axes.plot(score["by_seed"], [at] * len(score["by_seed"]), "o", color="#2b6cb0", markersize=4, alpha=0.7)
        axes.plot([score["mean"]], [at], "|", color="#1a365d", markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("questions answered right, %; bar: 95 % interval over seeds and clips, dots: seeds", fontsize=9)
    axes.set_title(f"{table.source}: {table.title}", loc="left", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [_finding(row) for row in rows], fontsize=8)
    right.spines["right"].set_visible(False)
    right.tick_params(length=0)
    with atomic_write(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})


def _label(row: Mapping[str, Any]) -> str:
    return row["row"] + (f"\n(paper {row['paper']:g})" if row["paper"] is not None else "")


def _finding(row: Mapping[str, Any]) -> str:
    against = row.get("against")
    if against is None:
        return ""
    low, high = against["difference"]["ci95"]
    paper = f"; paper {against['paper']:+g}" if against["paper"] is not None else ""
    return f"{against['difference']['mean']:+.1f} [{low:+.1f}, {high:+.1f}]{paper}\n{against['verdict']}"


def lines(table: Table, rows: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """The table as text."""
    say(f"{table.source}: {table.title}")
    for row in rows:
        low, high = row["score"]["ci95"]
        finding = _finding(row).replace("\n", ", ")
        say(f"  {row['row']:<34} {row['score']['mean']:5.1f} [{low:.1f}, {high:.1f}]  {finding}")
