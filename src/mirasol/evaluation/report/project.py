"""Everything that the report shows, read from a project folder: missing or broken parts are ``None``, no errors."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mirasol.core.machine import processor
from mirasol.training.curves import CURVES, SPEED

PHASES = ("pretrain", "audio_pretrain", "finetune")
COMMITS = 20  # of a report's history that are searched for an older score
PACKAGES = ("mirasol", "torch", "numpy", "av", "onnxruntime")


@dataclass(frozen=True)
class Project:
    """The contents of a project folder. ``None`` or empty: missing."""

    folder: Path
    params: Mapping[str, Any] | None = None
    reports: Mapping[str, Any] = field(default_factory=dict)  # name -> build/reports/<name>.json
    recorded: str = ""  # the score in reports/ if no evaluation was made here, in words
    benchmarks: Mapping[str, Any] = field(default_factory=dict)  # name -> reports/benchmarks/<name>.json
    ablations: Mapping[str, Any] = field(default_factory=dict)  # table -> reports/ablations/<table>.json
    ablations_here: bool = False  # made in this checkout, not brought by git
    curves: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)  # phase -> logged steps
    predictions: tuple[Mapping[str, Any], ...] = ()
    commit: Mapping[str, str] | None = None
    data: Mapping[str, Any] | None = None  # the entry of data.dvc: md5, size, nfiles
    imported: Mapping[str, Any] | None = None  # data/import.json of `mirasol data import`
    world: bool = False  # the data are the built-in world
    own: bool = False  # there are data, and they are not
    machine: Mapping[str, str] = field(default_factory=dict)


def read_project(folder: Path) -> Project:
    """Read a project folder; no file is required."""
    outs = (_yaml(folder / "data.dvc") or {}).get("outs")
    first = outs[0] if isinstance(outs, list) and outs else None
    reports = _reports(folder / "build" / "reports")  # git brings those in reports/: of a run made elsewhere, perhaps
    if latency := _json(folder / "runs" / "latency.json"):
        reports["latency"] = latency
    return Project(
        folder=folder,
        params=_yaml(folder / "params.yaml"),
        reports=reports,
        recorded="" if "eval" in reports else _recorded(folder),
        benchmarks=_reports(folder / "reports" / "benchmarks"),
        ablations=_reports(folder / "reports" / "ablations"),
        ablations_here=(folder / "runs" / "workspaces" / "ablations").is_dir(),
        curves={phase: rows for phase in PHASES if (rows := _curves(folder, phase))},
        predictions=tuple(filter(_is_prediction, _lines(folder / "build" / "evaluate" / "predictions.jsonl"))),
        commit=_commit(folder),
        data=first if isinstance(first, dict) else None,
        imported=_json(folder / "data" / "import.json"),
        world=(world := (folder / "data" / "families.json").is_file()),
        own=(folder / "data" / "manifest.jsonl").is_file() and not world,
        machine=machine(),
    )


def _recorded(folder: Path) -> str:
    """The evaluation in reports/, which was not made here: its score, and the processor and commit of its run."""
    report = _json(folder / "reports" / "eval.json") or {}
    overall, made = report.get("overall"), report.get("made_on")
    if not isinstance(overall, Mapping) or not isinstance(overall.get("exact_match"), float):
        return ""
    words = f"recorded run, not made here: {100 * overall['exact_match']:.1f} % exact match"
    if isinstance(made, Mapping):
        words += ", made on " + ", ".join(str(made[name]) for name in ("processor", "instructions") if name in made)
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        if commit := _git(folder, "log", "-1", "--format=%H", "--", "reports/eval.json"):
            words += f", at commit {commit[:12]}"
    return words


def _reports(folder: Path) -> dict[str, Any]:
    return {path.stem: value for path in sorted(folder.glob("*.json")) if (value := _json(path))}


def _curves(folder: Path, phase: str) -> list[dict[str, Any]]:
    """The logged lines of a phase, each with the speed of its steps if `runs/` still has it."""
    speed = {row.get("step"): row for row in _lines(folder / "runs" / phase / SPEED)}
    return [{**speed.get(row.get("step"), {}), **row} for row in _lines(folder / "build" / phase / CURVES)]


def _is_prediction(row: Mapping[str, Any]) -> bool:
    words = all(isinstance(row.get(name), str) for name in ("example_id", "clip", "family", "prompt"))
    return words and isinstance(row.get("answers"), list) and isinstance(row.get("predicted"), dict)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _yaml(path: Path) -> dict[str, Any] | None:
    try:
        value = YAML(typ="safe").load(path)
    except (OSError, ValueError, YAMLError):
        return None
    return value if isinstance(value, dict) else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; a line that is cut short ends the list."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                value = json.loads(line)
                if isinstance(value, dict):
                    rows.append(value)
    except (OSError, ValueError):
        pass
    return rows


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def previous(folder: Path, name: str, now: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The last committed ``reports/<name>.json`` that differs from ``now``, with its commit.

    If the working tree has a new score that is the one of the last commit, else the one before it.
    """
    path = f"reports/{name}.json"
    try:
        for commit in _git(folder, "log", f"-{COMMITS}", "--format=%H", "--", path).split():
            value = json.loads(_git(folder, "show", f"{commit}:./{path}"))
            if isinstance(value, dict) and value != now:
                return commit, value
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    return None


def _commit(folder: Path) -> dict[str, str] | None:
    try:
        hash_, date, subject = _git(folder, "log", "-1", "--format=%H%n%cs%n%s").split("\n", 2)
        changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"hash": hash_, "date": date, "subject": subject, "changed": "yes" if changed else ""}


def machine() -> dict[str, str]:
    """The machine that writes the report, and the versions that shape results."""
    found = {"system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count() or "?")}
    found["processor"] = processor()
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not on every system
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    found["python"] = platform.python_version()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
