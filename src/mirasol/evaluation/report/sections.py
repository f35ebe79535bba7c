"""The sections of the report about the run: headline, data, training, stream, and sources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mirasol.evaluation.report.album import Album
from mirasol.evaluation.report.charts import Series, line_chart, smooth
from mirasol.evaluation.report.html import flat, render
from mirasol.evaluation.report.project import PHASES, Project
from mirasol.evaluation.report.wording import latency_rows, parity_rows

SPLIT_WORDS = {"train": "train on", "val": "validate on", "test": "test on"}
MEDIA_WORDS = {"media_without_audio": "without sound", "media_without_video": "without picture"}
SHARD_WORDS = {
    "without_audio": "clips without sound",
    "without_video": "clips without picture",
    "partial": "damaged",
    "cut_short": "longer than their chunks",
}
LOSSES = ("text", "latent", "video", "audio")  # P 3.5; unweighted; audio if the model reconstructs it
SPREAD = {"x_std_time": "over time", "x_std_batch": "over clips"}  # near 0: the latent has collapsed
SHARES = {"wait_share": "waiting for data", "mfu": "MFU"}
SMOOTH = 5  # logged lines that a point of a loss curve averages
LOWEST = 3  # families named in a chart of accuracies; the others are thin lines


def realtime(latency: Mapping[str, Any] | None) -> float | None:
    """Times faster than real time of the streamed clip: the slowest variant if several were timed."""
    found = (latency or {}).get("realtime")
    values = [v for _, v in flat(found)] if isinstance(found, Mapping) else [found]
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return min(numbers, default=None)


def timing(project: Project) -> str:
    """The command that times the bundle: DVC would not repeat a benchmark whose answers are up to date."""
    return "mirasol stage benchmark" if "streaming" in project.reports else "dvc repro benchmark"


def hero(project: Project, album: Album, featured: Mapping[str, Any] | None) -> str:
    """The headline, and the table of the main figures, each with its interval and its chance."""
    found = project.reports.get("parity") or {}
    parity, counts = found.get("max_relative"), (found.get("answers_equal"), found.get("answers"))
    return render(
        "hero.html",
        report=project.reports.get("eval"),
        speed=realtime(project.reports.get("latency")),
        parity=parity if isinstance(parity, (int, float)) else None,
        equal="{:,} of {:,}".format(*counts) if all(isinstance(n, int) for n in counts) else "",
        featured=featured,
        clips=album.clips,
        recorded=project.recorded,
        timing=timing(project),
    )


def data_section(project: Project, album: Album, sheet: Sequence[tuple[str, str, str]]) -> str:
    """The training data: counts, and clips as (key, question, answer)."""
    report = project.reports.get("shards")
    return render(
        "data.html",
        report=report,
        facts=_facts(report) if report else [],
        world=project.world,
        imported=_imported(project.imported or {}),
        sheet_rows=sheet,
        clips=album.clips,
    )


def _imported(found: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of `mirasol data import`, by name."""
    answers = found.get("answers") or {}
    rows = {
        "set": found.get("set"),
        "media": found.get("media"),
        "source videos": found.get("groups"),
        "tasks": found.get("tasks"),
        "families of questions": found.get("families"),
        "different answers": answers.get("distinct"),
        "of them known from training": answers.get("known_from_train"),
    }
    rows |= {f"media {word}": len(found[key]) for key, word in MEDIA_WORDS.items() if found.get(key)}
    return {name: value for name, value in rows.items() if value}


def _facts(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Counts of clips and texts, and the size, by name."""
    counts = dict(flat(report))
    facts = [(f"clips to {word}", counts.get(f"splits.{split}")) for split, word in SPLIT_WORDS.items()]
    examples = [v for n, v in counts.items() if n.startswith("examples.") and isinstance(v, int)]
    facts += [("texts", sum(examples) or None), ("rejected", counts.get("rejected"))]
    facts += [(words, counts.get(name) or None) for name, words in SHARD_WORDS.items()]
    if isinstance(size := counts.get("bytes"), int):
        facts.append(("of shards", f"{size / 1e6:,.0f}\u202fMB"))
    return [(name, value) for name, value in facts if value is not None]


def training_section(project: Project) -> str:
    """Loss, accuracy and speed of each phase."""
    charts = {phase: drawn for phase in PHASES if (drawn := _charts(project.curves.get(phase) or ()))}
    phases = [phase for phase in reversed(PHASES) if phase in charts or not project.own]
    return render("training.html", phases=phases, charts=charts, reports=project.reports) if phases else ""


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [dict(flat(row)) for row in rows]
    names = sorted({name for line in lines for name in line})
    families = [name for name in names if name.startswith("val.families.") and name.endswith(".exact_match")]
    last = {name: points[-1][1] for name in families if (points := _points(lines, name))}
    lowest = sorted(last, key=lambda name: (last[name], name))[:LOWEST]
    end = max((step for step, _ in _points(lines, "step")), default=1.0)

    def series(name: str, label: str, tone: int = 0, width: int = 1) -> Series:
        points = _points(lines, name)
        return Series(label, [x for x, _ in points], smooth([y for _, y in points], width), tone)

    losses = [series(name, name, tone, SMOOTH) for tone, name in enumerate(LOSSES) if name in names]
    accuracy = [series("val.exact_match", "all")]
    accuracy += [series(name, name.split(".")[2].replace("_", " "), tone) for tone, name in enumerate(lowest, 1)]
    accuracy += [series(name, "", 7) for name in last if name not in lowest]
    spread = [series(name, label, tone, SMOOTH) for tone, (name, label) in enumerate(SPREAD.items())]
    shares = [series(name, label, tone, SMOOTH) for tone, (name, label) in enumerate(SHARES.items())]
    charts = [
        line_chart("loss", curves(losses), end=end),
        line_chart("accuracy", curves(accuracy), end=end, percent=True),
        line_chart("spread of the features over time and clips", curves(spread), end=end),
        line_chart("clips per second", curves([series("clips_per_second", "clips/s", 0, SMOOTH)]), end=end),
        line_chart("share of a step", curves(shares), end=end, percent=True),
    ]
    return [chart for chart in charts if chart]


def curves(found: Sequence[Series]) -> list[Series]:
    """The series with two points or more: fewer are no curve."""
    return [one for one in found if len(one.x) > 1]


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (float(line.get("step", i)), float(line[name]))
        for i, line in enumerate(lines)
        if isinstance(line.get(name), (int, float)) and math.isfinite(line[name])
    ]


def stream_section(project: Project) -> str:
    """Parity and latency of the exported bundle."""
    parity, latency = (project.reports.get(name) or {} for name in ("parity", "latency"))
    return render("stream.html", parity=parity_rows(parity), latency=latency_rows(latency), timing=timing(project))


def origin_section(project: Project) -> str:
    """The sources of this report: commit, data, machine, parameters."""
    parts = {name: getattr(project, name) for name in ("commit", "data", "machine", "params")}
    return render("origin.html", **parts, made_on=(project.reports.get("eval") or {}).get("made_on"))
