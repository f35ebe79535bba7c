"""The sections of the report about the run: headline, data, training, stream, and what made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mirasol.evaluation.report.charts import Series, line_chart, number, smooth
from mirasol.evaluation.report.html import (
    Album,
    flat,
    interval,
    leaves,
    missing,
    percent,
    section,
    shown,
    stat,
    table,
    text,
    title,
)
from mirasol.evaluation.report.project import PHASES, Project

PHASE_WORDS = {
    "pretrain": "captions, text decoder frozen but for its cross-attention",
    "audio_pretrain": "names of sounds, audio weights alone",
    "finetune": "questions, all weights",
}
SPLIT_WORDS = {"train": "train on", "val": "validate on", "test": "test on"}
MEDIA_WORDS = {"media_without_audio": "without sound", "media_without_video": "without picture"}
SHARD_WORDS = {
    "without_audio": "clips without sound",
    "without_video": "clips without picture",
    "partial": "damaged",
    "cut_short": "longer than their chunks",
}
LOSSES = ("text", "latent", "video", "audio")  # P 3.5; unweighted; audio where the model reconstructs it
SPREAD = {"x_std_time": "over time", "x_std_batch": "over clips"}  # near 0: the latent has collapsed
SMOOTH = 5  # logged lines that a point of a loss curve averages
LOWEST = 3  # families named in a chart of accuracies; the others are thin lines


def realtime(latency: Mapping[str, Any] | None) -> float | None:
    """Times faster than real time of the streamed clip: the slowest variant where several were timed."""
    found = (latency or {}).get("realtime")
    values = [v for _, v in flat(found)] if isinstance(found, Mapping) else [found]
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return min(numbers, default=None)


def hero(project: Project, album: Album, featured: Mapping[str, Any] | None) -> str:
    """The headline: how good, how sure, how fast, how equal."""
    report, parity = project.reports.get("eval"), project.reports.get("parity")
    speed = realtime(project.reports.get("latency"))
    stats = []
    if report:
        cell = report["overall"]
        heading = f"{percent(cell['exact_match'])} right on clips it has never seen"
        lead = (
            f"The model watched {cell['clips']:,} held-out clips, listened to their sound, and wrote its answers to "
            f"{cell['n']:,} questions freely, word by word. Only an exact match counts."
        )
        stats.append(stat("Exact match", percent(cell["exact_match"]), f"95 % interval {interval(cell)}", gauge(cell)))
    else:
        heading, lead = "No score yet", "This project has not been evaluated."
        stats.append(missing("Evaluation", "dvc repro evaluate"))
    if speed is None:
        stats.append(missing("Streaming speed", "dvc repro benchmark"))
    else:
        stats.append(stat("Streaming", f"{number(speed)}×", "real time, decoding included, without PyTorch"))
    if parity and isinstance(parity.get("max_relative"), (int, float)):
        stats.append(stat("Parity", number(parity["max_relative"]), "largest relative difference, torch to ONNX"))
    else:
        stats.append(missing("Parity", "dvc repro export"))
    picture = ""
    if featured:
        asked = f"{text(featured['prompt'])} <b>{text(featured['predicted']['full'])}</b>"
        picture = f'<figure class="hero-clip">{album.player(featured["clip"])}<figcaption>{asked}</figcaption></figure>'
    return (
        f'<header class="hero"><div class="hero-text"><p class="brand">{SUN}mirasol</p><h1>{text(heading)}</h1>'
        f'<p class="lead">{text(lead)}</p></div>{picture}</header><div class="stats">{"".join(stats)}</div>'
        f"{headline(report) if report else ''}"
    )


def headline(report: Mapping[str, Any]) -> str:
    """The table of the page's main figures, each with its interval, its chance and how much was asked."""
    cells = [("All questions", "the clip as it is", report["overall"])]
    if report.get("novel"):
        cells.append(("Never-seen combinations", "of colours, shapes and sounds", report["novel"]))
    cells += [(name, words, report[c]["overall"]) for c, (name, words) in TAKEN_AWAY.items() if c in report]
    rows = "".join(
        f'<tr><th scope="row">{text(name)}'
        f"<small>{text(words)}; {cell['n']:,} questions, {cell['clips']:,} clips</small></th>"
        f"<td><b>{percent(cell['exact_match'])}</b></td><td>{interval(cell)}</td><td>{percent(cell['chance'])}</td></tr>"
        for name, words, cell in cells
    )
    heads = "".join(f'<th scope="col">{word}</th>' for word in ("exact match", "95 % interval", "chance"))
    lost = report.get("missing") or []
    note = f'<p class="legend">{len(lost):,} clips of the split are missing: counted wrong.</p>' if lost else ""
    return (
        f'<div class="card headline"><table class="figures"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{note}</div>"
    )


TAKEN_AWAY = {
    "muted": ("Without sound", "digital silence"),
    "blanked": ("Without picture", "black frames"),
    "swapped": ("With a wrong sound", "that of another clip"),
    "shuffled": ("In another order", "chunks shuffled, picture and sound together"),
}
SUN = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="4.4"/>'
    + "".join(
        f'<ellipse cx="{12 + 8 * math.cos(a):.2f}" cy="{12 + 8 * math.sin(a):.2f}" rx="3" ry="1.5" '
        f'transform="rotate({math.degrees(a):.0f} {12 + 8 * math.cos(a):.2f} {12 + 8 * math.sin(a):.2f})"/>'
        for a in (math.tau * i / 10 for i in range(10))
    )
    + "</svg>"
)


def gauge(cell: Mapping[str, Any]) -> str:
    """A bar from 0 to 100 % with the interval on it and a mark at chance."""
    low, high = (100 * end for end in cell["ci95"])
    value, chance = 100 * cell["exact_match"], 100 * cell["chance"]
    return (
        f'<span class="gauge" title="chance {percent(cell["chance"])}"><i class="fill" style="width:{value:.2f}%"></i>'
        f'<i class="range" style="left:{low:.2f}%;width:{max(high - low, 0.4):.2f}%"></i>'
        f'<i class="mark" style="left:{chance:.2f}%"></i></span>'
    )


def data_section(project: Project, album: Album, sheet: Sequence[tuple[str, str, str]]) -> str:
    """What the model was fed: counts, and clips as (key, question, answer)."""
    report = project.reports.get("shards")
    body = (_shards(report) if report else missing("Shards", "dvc repro shards")) + _source(project)
    if sheet:
        cards = "".join(
            f'<figure class="card clip"><div class="scroll">{album.sheet(key)}</div>'
            f"<figcaption>{text(question)} <b>{text(answer)}</b></figcaption></figure>"
            for key, question, answer in sheet
        )
        body += f'<div class="grid wide">{cards}</div>'
    else:
        body += missing("Pictures of clips", "dvc repro evaluate")
    lead = (
        "Each row is one clip: its frames in order and, on the same time axis, the log-mel spectrogram that the model "
        "hears, low tones at the bottom. Lines are the limits of its chunks."
    )
    return section("data", "What it sees and hears", lead, body)


def _source(project: Project) -> str:
    """Where the data come from and what is asked: what `mirasol data import` wrote down, or the built-in world."""
    if project.world:
        return '<p class="source">Made by <code>mirasol world</code>: a built-in world of moving shapes and sounds.</p>'
    found = project.imported
    if not found:
        return ""
    answers = found.get("answers") or {}
    rows = [("set", found.get("set")), ("media", found.get("media")), ("source videos", found.get("groups"))]
    rows += [("tasks", found.get("tasks")), ("families of questions", found.get("families"))]
    rows += [
        ("different answers", answers.get("distinct")),
        ("of them known from training", answers.get("known_from_train")),
    ]
    rows += [(f"media {word}", len(found[key])) for key, word in MEDIA_WORDS.items() if found.get(key)]
    return f'<div class="card source">{table(leaves({name: value for name, value in rows if value}))}</div>'


def _shards(report: Mapping[str, Any]) -> str:
    """Counts of clips and texts per split, size, and what was rejected and why."""
    counts = dict(flat(report))
    facts = [(f"clips to {word}", counts.get(f"splits.{split}")) for split, word in SPLIT_WORDS.items()]
    examples = [v for n, v in counts.items() if n.startswith("examples.") and isinstance(v, int)]
    facts += [("texts", sum(examples) or None), ("rejected", counts.get("rejected"))]
    facts += [(words, counts.get(name) or None) for name, words in SHARD_WORDS.items()]
    if isinstance(size := counts.get("bytes"), int):
        facts.append(("of shards", f"{size / 1e6:,.0f}\u202fMB"))
    body = "".join(
        f"<span><b>{text(shown(v) if not isinstance(v, int) else f'{v:,}')}</b><small>{text(n)}</small></span>"
        for n, v in facts
        if v is not None
    )
    listed = report.get("rejected_list") or []
    if listed:
        items = "".join(f"<li>{text(line)}</li>" for line in listed)
        body += f'<details class="rejected"><summary>clips that were left out</summary><ul>{items}</ul></details>'
    return f'<div class="facts">{body}</div>'


def training_section(project: Project) -> str:
    """Loss, accuracy and speed of each phase."""
    panels = []
    for phase in PHASES:
        rows = project.curves.get(phase)
        head = f"<h3>{title(phase)}<small>{text(PHASE_WORDS[phase])}</small></h3>"
        skipped = (project.reports.get(phase) or {}).get("skipped")
        if rows:
            charts = "".join(_charts(rows))
        elif skipped:
            charts = f'<p class="missing">Left out: {text(skipped)}. The weights were handed on.</p>'
        else:
            charts = missing(f"Curves of {phase}", f"dvc repro {phase}")
        panels.append(f'<div class="card phase">{head}{charts}</div>')
    lead = (
        "Every phase as it was logged: unweighted losses, and the share of answers on the validation split that are "
        "right, the three lowest families by name. A low latent loss is no success where the spread of x is near 0."
    )
    return section("training", "How it learnt", lead, f'<div class="grid three">{"".join(panels)}</div>')


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [dict(flat(row)) for row in rows]
    names = sorted({name for line in lines for name in line})
    families = [name for name in names if name.startswith("val.families.") and name.endswith(".exact_match")]
    last = {name: _points(lines, name)[-1][1] for name in families if _points(lines, name)}
    lowest = sorted(last, key=lambda name: (last[name], name))[:LOWEST]
    accuracy = [_series(lines, "val.exact_match", "all", 0, 1)]
    accuracy += [_series(lines, n, n.split(".")[2].replace("_", " "), i + 1, 1) for i, n in enumerate(lowest)]
    accuracy += [_series(lines, n, "", 7, 1) for n in last if n not in lowest]
    end = max((step for step, _ in _points(lines, "step")), default=1.0)
    return [
        line_chart("loss", [_series(lines, n, n, i, SMOOTH) for i, n in enumerate(LOSSES) if n in names], end=end),
        line_chart("accuracy", accuracy, end=end, percent=True),
        line_chart(
            "spread of x", [_series(lines, n, w, i, SMOOTH) for i, (n, w) in enumerate(SPREAD.items())], end=end
        ),
        line_chart("clips per second", [_series(lines, "clips_per_second", "clips/s", 0, SMOOTH)], end=end),
    ]


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (float(line.get("step", i)), float(line[name]))
        for i, line in enumerate(lines)
        if isinstance(line.get(name), (int, float)) and math.isfinite(line[name])
    ]


def _series(lines: Sequence[Mapping[str, Any]], name: str, label: str, tone: int, width: int) -> Series:
    points = _points(lines, name)
    return Series(label, [x for x, _ in points], smooth([y for _, y in points], width), tone)


def stream_section(project: Project) -> str:
    """Parity and latency of the exported bundle."""
    cards = []
    for name, heading, command in (
        ("parity", "Same numbers as PyTorch", "dvc repro export"),
        ("latency", "Fast enough to be live", "dvc repro benchmark"),
    ):
        report = project.reports.get(name)
        body = missing(name.title(), command)
        if report:
            body = table(leaves(report))
        cards.append(f'<div class="card"><h3>{heading}</h3>{body}</div>')
    lead = "The exported bundle runs on numpy and ONNX Runtime, one chunk at a time, with a memory that does not grow."
    return section("stream", "On a live stream", lead, f'<div class="grid two">{"".join(cards)}</div>')


def origin_section(project: Project) -> str:
    """What made this report: commit, data, machine, parameters."""
    commit, data = project.commit, project.data
    rows: list[tuple[str, str]] = []
    if commit:
        changed = ' <em class="warn">with changes that are not committed</em>' if commit["changed"] else ""
        rows.append(("commit", f"<code>{text(commit['hash'][:12])}</code> {text(commit['date'])}{changed}"))
        rows.append(("its subject", text(commit["subject"])))
    if data:
        size = f", {data['size'] / 1e6:,.0f} MB" if isinstance(data.get("size"), int) else ""
        files = f", {data['nfiles']:,} files" if isinstance(data.get("nfiles"), int) else ""
        rows.append(("data", f"<code>{text(data.get('md5', 'no hash'))}</code>{files}{size}"))
    notes = "" if commit else missing("Commit", "git commit", "not in git")
    notes += "" if data else missing("Data hash", "dvc add data", "not versioned")
    machine = table((text(n), text(v)) for n, v in project.machine.items())
    cards = f'<div class="card"><h3>Sources</h3>{table(rows) if rows else ""}{notes}</div>'
    cards += f'<div class="card"><h3>Machine<small>that wrote this page</small></h3>{machine}</div>'
    body = f'<div class="grid two">{cards}</div>'
    if project.params:
        parts = "".join(
            f"<details><summary>{title(name)}</summary>{table((text(n), text(shown(v))) for n, v in flat(values))}"
            "</details>"
            for name, values in project.params.items()
            if isinstance(values, Mapping)
        )
        body += f'<h3 class="between">Parameters</h3><div class="params">{parts}</div>'
    else:
        body += missing("params.yaml", "mirasol params check", "cannot be read")
    lead = "The same commit, data and parameters give the same figures: <code>dvc repro</code>."
    return section("origin", "Where these figures come from", lead, body)
