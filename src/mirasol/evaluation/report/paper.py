"""The section of the report that compares the paper's tables with scores of this project, and flags differences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeGuard

from mirasol.evaluation.report.html import interval, render
from mirasol.evaluation.report.project import Project
from mirasol.tasks.questions import published_split
from mirasol.tasks.registry import PROTOCOLS

OWN = "Mirasol3B"  # how the paper's own rows begin
ACCURACY = {"accuracy", "exactmatch", "top1", "acc", "overall", "all"}


@dataclass(frozen=True)
class Part:
    """A score on the questions of one type."""

    name: str
    value: float
    ci95: tuple[float, float] | None
    questions: Any

    @property
    def interval(self) -> str:
        """``45.9 to 48.3 %``, empty if the file has none."""
        return interval({"ci95": self.ci95}) if self.ci95 else ""


@dataclass(frozen=True)
class Result(Part):
    """A score of this project on a published set. Shares are 0 to 1."""

    metric: str
    missing: int  # clips that are not in the shards, and so count as wrong
    reasons: tuple[str, ...]  # why the paper's figure is not comparable
    parts: tuple[Part, ...] = ()


def paper_tables() -> dict[str, Any]:
    """The paper's figures: ``source``, ``benchmarks``, ``ablations`` (templates/paper.json)."""
    path = resources.files("mirasol.evaluation.report") / "templates" / "paper.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def key_of(name: object) -> str:
    """One key for all spellings of a name: ``MSRVTT-QA``, ``msrvtt_qa`` -> ``msrvttqa``."""
    return "".join(c for c in str(name).lower() if c.isalnum())


def results(project: Project) -> list[Result]:
    """Scores on published sets: reports/benchmarks/*.json, and reports/eval.json if the data are such a set."""
    found = [r for name, report in project.benchmarks.items() if (r := _benchmark(name, report)) is not None]
    name = (project.imported or {}).get("set")
    report = project.reports.get("eval")
    if isinstance(name, str) and report and key_of(name) not in {key_of(r.name) for r in found}:
        cell = report["overall"]
        low, high = cell["ci95"]
        lost = len(report.get("missing") or ())
        reasons = tuple(_of_run(name, project.imported or {}, str(report.get("split", "test")), cell["n"]))
        found.append(Result(name, cell["exact_match"], (low, high), cell["n"], "exact_match", lost, reasons))
    return found


def _of_run(name: str, imported: Mapping[str, Any], split: str, asked: int) -> Iterator[str]:
    """Reasons not to compare a run of the pipeline, which scores exact match alone, on an imported set."""
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        if split != "test":
            yield f"scored on the {split} split"
        return
    published = published_split(protocol, imported, split)
    if published != protocol.split:
        yield f"scored on the {published or split} split"
    if protocol.metric == "accuracy":
        yield "answers were written freely, the table's were chosen"
    count = protocol.published.get(published or "")
    if count not in (None, asked):
        yield f"{asked:,} questions of the {count:,} that were published"


def _benchmark(name: str, report: Mapping[str, Any]) -> Result | None:
    """The result of a file of `mirasol evaluate BENCHMARK`, ``None`` if it has no headline.

    The headline is ``headline`` (metric, value, ci95, n), or the cell ``overall`` with the figure under its ``metric``.
    """
    cell = report.get("headline", report.get("overall"))
    if not isinstance(cell, Mapping):
        return None
    metric = str(cell.get("metric", report.get("metric", "accuracy")))
    value = cell.get("value", cell.get(metric))
    if not is_number(value):
        return None
    given = report.get("not_comparable") or ()
    reasons = [given] if isinstance(given, str) else [str(reason) for reason in given]
    if key_of(metric) not in ACCURACY:
        reasons.append(f"it is {metric}, the table gives accuracy")
    asked = report.get("questions")
    published = asked.get("published") if isinstance(asked, Mapping) else None
    questions = cell.get("n")
    if isinstance(questions, int) and isinstance(published, int) and questions != published:
        reasons.append(f"{questions:,} questions of the {published:,} that were published")
    split = asked.get("split") if isinstance(asked, Mapping) else None
    protocol = PROTOCOLS.get(str(report.get("benchmark", name)))
    if protocol and isinstance(split, str) and split != protocol.split:
        reasons.append(f"scored on the {split} split")
    classes = report.get("classes")
    if isinstance(classes, Mapping) and classes.get("published") not in (None, classes.get("n")):
        reasons.append(f"{classes.get('n')} of {classes['published']} classes")
    missing = report.get("missing")
    count = len(missing) if isinstance(missing, Sequence) else missing
    parts = report.get("parts")
    return Result(
        str(report.get("benchmark", name)),
        _share(value),
        _ends(cell),
        questions if isinstance(questions, int) else None,
        metric,
        count if isinstance(count, int) else 0,
        tuple(reasons),
        tuple(
            Part(str(part), _share(inner[metric]), _ends(inner), inner.get("n"))
            for part, inner in (parts if isinstance(parts, Mapping) else {}).items()
            if isinstance(inner, Mapping) and is_number(inner.get(metric))
        ),
    )


def _share(value: float) -> float:
    """0 to 1, of a share or of per cent."""
    return float(value) / 100 if value > 1 else float(value)


def _ends(cell: Mapping[str, Any]) -> tuple[float, float] | None:
    ends = cell.get("ci95")
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(is_number, ends)):
        return None
    scale = 100 if ends[1] > 1 else 1
    return ends[0] / scale, ends[1] / scale


def printed(value: float) -> str:
    """A figure with the paper's decimals, at least one."""
    return f"{value:g}" if value % 1 else f"{value:.1f}"


def is_number(value: object) -> TypeGuard[float]:
    """A finite number of a JSON file."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def source_of(project: Project) -> str:
    """The data of the run, in words."""
    if project.world:
        return "the built-in world"
    name = (project.imported or {}).get("set")
    return str(name) if isinstance(name, str) else "other data"


def paper_section(project: Project) -> str:
    """A card per table of the paper, ours in its last row."""
    tables, ours = paper_tables(), results(project)
    cards, placed = [], set()
    for table in tables["benchmarks"]:
        sets = {key_of(name): reason for name, reason in table["sets"].items()}
        found = [(r, sets[key_of(r.name)]) for r in ours if key_of(r.name) in sets]
        placed |= {r.name for r, _ in found}
        own = sorted((row for row in table["rows"] if row[0].startswith(OWN)), key=lambda row: -row[1])
        best = max((row for row in table["rows"] if not row[0].startswith(OWN)), key=lambda row: row[1])
        cards.append((table, own, best, found))
    if project.own:  # nothing to compare but what was scored on a set of the paper
        cards = [card for card in cards if card[3]]
        if not cards:
            return ""
    report, source = project.reports.get("eval"), source_of(project)
    return render(
        "paper.html",
        tables=tables,
        cards=cards,
        rest=[(r, "the paper has no figure for it") for r in ours if r.name not in placed],
        report=report,
        source=source,
        apart=bool(report) and key_of(source) not in {key_of(r.name) for r in ours},
        printed=printed,
    )
