"""The figures of a run as Markdown, for a pull request: scores, changes since the last commit, the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.data.conditions import Condition
from mirasol.evaluation.report.ablations import Row, tables, verdicts
from mirasol.evaluation.report.answers import ordered_families
from mirasol.evaluation.report.html import interval, number, percent, signed
from mirasol.evaluation.report.paper import OWN, key_of, paper_tables, printed, results
from mirasol.evaluation.report.project import Project, previous, read_project
from mirasol.evaluation.report.sections import realtime

CHANGES = list(Condition)[1:]
ABLATION = ("table", "row", "paper", "ours", "ci95", "against", "difference", "verdict")


def markdown(folder: Path) -> str:
    """The figures as a short Markdown text."""
    project = read_project(folder)
    report = project.reports.get("eval")
    parts = [_headline(report) if report else "No score yet: run `dvc repro evaluate`."]
    if project.recorded:
        parts.append(f"In reports/: {project.recorded}.")
    parts.append(_engine(project))
    if report:
        parts += [_families(report), _matters(report), _changes(project, report)]
    parts += [_benchmarks(project), _ablations(project), _origin(project)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(report: Mapping[str, Any]) -> str:
    cell = report["overall"]
    return (
        f"**{percent(cell['exact_match'])} exact match** ({interval(cell)}; chance {percent(cell['chance'])}; "
        f"{cell['n']:,} questions about {cell['clips']:,} clips)"
    )


def _engine(project: Project) -> str:
    parity, speed = project.reports.get("parity"), realtime(project.reports.get("latency"))
    lines = [] if speed is None else [f"Streaming: {number(speed)}× real time"]
    if parity and "max_relative" in parity:
        lines.append(f"Parity: {parity['max_relative']:.1e} largest relative difference to torch")
    return "\n\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _families(report: Mapping[str, Any]) -> str:
    conditions = [c for c in CHANGES if c in report]  # an earlier version had fewer
    rows = []
    for name in ordered_families(report):
        cell = report["families"][name]
        lost = [percent(report[c]["families"][name]["exact_match"]) for c in conditions]
        rows.append([name, percent(cell["exact_match"]), interval(cell), percent(cell["chance"]), *lost])
    return _table(("family", "exact_match", "ci95", "chance", *conditions), rows)


def _matters(report: Mapping[str, Any]) -> str:
    """Whether each family needs a modality or the order of time, if data/families.json knows."""
    found = report.get("matters", {})
    known = [cell["holds"] for row in found.values() for cell in row.values() if cell["holds"] is not None]
    if not known:
        return ""
    rows = [[name, *(_finding(found[name][c]) for c in CHANGES)] for name in ordered_families(report)]
    said = f"What needs what: {sum(known)} of {len(known)} as it must be, **bold** the others"
    return f"{said}\n\n{_table(('family', *CHANGES), rows)}"


def _finding(cell: Mapping[str, Any]) -> str:
    if cell["holds"] is None:
        return ""
    words = cell["found"] if cell["holds"] else f"**{cell['found']}**"
    return f"{words} ({interval(cell)}; chance {percent(cell['chance'])})"


def _changes(project: Project, report: Mapping[str, Any]) -> str:
    """Changes since the last committed score that differs; empty without one."""
    found = previous(project.folder, "eval", report)
    if found is None:
        return ""
    commit, before = found
    title = f"Since `{commit[:12]}`"
    try:
        asked = {name: (cell["n"], cell["clips"]) for name, cell in _cells(report)}
        then = {name: (cell["n"], cell["clips"]) for name, cell in _cells(before)}
        if asked != then or report.get("split") != before.get("split"):
            return f"{title}: not comparable, other questions were asked"
        if report.get("normaliser") != before.get("normaliser"):
            return f"{title}: not comparable, another normaliser"
        old = dict(_cells(before))
        rows = [_change(name, old[name], cell) for name, cell in _cells(report) if cell != old[name]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"{title}: not comparable, a report of another version"
    if not rows:
        return f"{title}: no score moved, only those under other conditions"
    note = "**Bold**: the two intervals are apart. Questions are the same: `mirasol compare` tests them in pairs."
    return f"{title}:\n\n{_table(('', 'before', 'now', 'points'), rows)}\n\n{note}"


def _cells(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    novel = [("never-seen combinations", report["novel"])] if report.get("novel") else []
    return [("all questions", report["overall"]), *novel, *report["families"].items()]


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    points = f"{100 * (new['exact_match'] - old['exact_match']):+.1f}"
    apart = new["ci95"][0] > old["ci95"][1] or new["ci95"][1] < old["ci95"][0]
    before, now = (f"{percent(cell['exact_match'])} ({interval(cell)})" for cell in (old, new))
    return [name, before, now, f"**{points}**" if apart else points]


def _benchmarks(project: Project) -> str:
    """Scores on published sets next to the paper's best figures."""
    own: dict[str, tuple[str, float]] = {}
    reasons: dict[str, str] = {}
    for table in paper_tables()["benchmarks"]:
        best = max((row for row in table["rows"] if row[0].startswith(OWN)), key=lambda row: row[1])
        for name, reason in table["sets"].items():
            own[key_of(name)] = table["table"], best[1]
            reasons[key_of(name)] = reason
    rows = []
    for result in results(project):
        key = key_of(result.name)
        place, best = own.get(key, ("", None))
        why = "; ".join([*result.reasons, *([reasons[key]] if reasons.get(key) else [])])
        paper = "no figure" if best is None else f"{printed(best)} ({place})"
        asked = "" if result.questions is None else f"{result.questions:,}"
        ours = f"{percent(result.value)} ({result.interval})" if result.interval else percent(result.value)
        rows.append([result.name, ours, asked, paper, f"not comparable: {why}" if why else ""])
    return _table(("benchmark", "ours", "questions", "paper", ""), rows) if rows else ""


def _ablations(project: Project) -> str:
    counted = verdicts(project)
    if project.own or not counted:  # those of another world say nothing about own data
        return ""
    rows = [
        [
            key,
            row.name,
            _number(row.paper),
            _number(row.ours),
            _ends(row.ci95),
            row.against,
            _difference(row),
            row.verdict,
        ]
        for key, (_, found) in tables(project).items()
        for row in found
    ]
    said = ", ".join(f"{n} {verdict}" for verdict, n in counted.most_common())
    where = "" if project.ablations_here else " (recorded run, not made here)"
    return f"Ablations{where}: {said}\n\n{_table(ABLATION, rows)}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    ends = row.difference_ci95
    return signed(row.difference) + (f" ({signed(ends[0])} to {signed(ends[1])})" if ends else "")


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _ends(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def _origin(project: Project) -> str:
    if not project.commit:
        return ""
    data = f", data `{project.data['md5']}`" if project.data and "md5" in project.data else ""
    changed = " with changes that are not committed" if project.commit["changed"] else ""
    machine = ", ".join(project.machine[n] for n in ("processor", "system") if n in project.machine)
    machine += f", {project.machine.get('cores', '?')} cores"
    return f"Commit `{project.commit['hash'][:12]}`{changed}{data}; written on {machine}"
