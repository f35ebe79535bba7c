"""The end of a run on one screen: result, weakest family, report, bundle, next command."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirasol.core.progress import clock
from mirasol.pipeline.paths import BUNDLE, DATA, EVALUATE, REPORT, REPORTS
from mirasol.tasks.scoring.statistics import HEADLINE_CLIPS


def outcome(root: Path, stages: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The facts of a finished run of the workspace ``root``; ``None`` for what does not exist yet.

    Args:
        stages: name -> `ran`, `restored` or `unchanged`.
        seconds: of the whole run.
    """
    score = _read(root / REPORTS / "eval.json")
    families = score.get("families") if isinstance(score.get("families"), dict) else {}
    cells = {name: cell for name, cell in (families or {}).items() if "exact_match" in cell}
    weakest = min(cells, key=lambda name: cells[name]["exact_match"]) if len(cells) > 1 else None
    page, bundle = root / REPORT / "index.html", root / BUNDLE
    made = (bundle / "contract.json").is_file()
    return {
        "stages": dict(stages),
        "seconds": round(seconds, 1),
        "result": {"split": score.get("split"), **_cell(score["overall"])} if "overall" in score else None,
        "weakest": {"family": weakest, **_cell(cells[weakest])} if weakest else None,
        "report": _shown(page) if page.is_file() else None,
        "bundle": _shown(bundle) if made else None,
        "next": _next(root, bundle) if made else None,
    }


def screen(facts: Mapping[str, Any]) -> str:
    """The facts of :func:`outcome` for a reader, one line each."""
    counts = Counter(facts["stages"].values())
    words = {"ran": "ran", "restored": "taken from the run cache", "unchanged": "up to date"}
    done = ", ".join(f"{counts[how]} {said}" for how, said in words.items() if counts[how])
    rows = [("stages", f"{done}, in {clock(facts['seconds'])}")]
    if result := facts["result"]:
        few = f"; fewer than {HEADLINE_CLIPS} clips say little" if (result["clips"] or 0) < HEADLINE_CLIPS else ""
        asked = f"{result['n']:,} questions about {result['clips'] or 0:,} clips of the split {result['split']}{few}"
        rows.append(("result", f"{_score(result)}, {asked}"))
    if weakest := facts["weakest"]:
        rows.append(("weakest", f"{weakest['family']}: {_score(weakest)}, {weakest['n']:,} questions"))
    rows += [(name, facts[name]) for name in ("report", "bundle", "next") if facts[name]]
    return "\n".join(f"{name:<9}{text}" for name, text in rows)


def _score(cell: Mapping[str, Any]) -> str:
    """93.3 % right (95 % interval 92.7 to 93.9 %; chance 22.8 %)."""
    low, high = (f"{100 * end:.1f}" for end in cell["ci95"])
    chance = f"; chance {100 * cell['chance']:.1f} %" if cell["chance"] is not None else ""
    return f"{100 * cell['exact_match']:.1f} % right (95 % interval {low} to {high} %{chance})"


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell.get(name) for name in ("exact_match", "ci95", "chance", "n", "clips")}


def _next(root: Path, bundle: Path) -> str:
    """A command that asks the new bundle: about an evaluated clip, in the words of its question, if there is one."""
    video, question = "VIDEO", "QUESTION"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with (root / EVALUATE / "predictions.jsonl").open(encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(50), strict=False)]
        row = max(rows, key=lambda row: (row["prompt"].endswith("?"), row["predicted"]["unchanged"] in row["answers"]))
        question = row["prompt"]
        video = _medium(root, row["example_id"]) or video
    here = bundle.absolute() == BUNDLE.absolute()
    option = "" if here else f" --bundle {shlex.quote(_shown(bundle))}"
    return f"{program()} answer {shlex.quote(video)} {shlex.quote(question)}{option}"


def _medium(root: Path, example: str) -> str:
    """The path of an example's media file; empty if it is not a file here."""
    with (root / DATA / "manifest.jsonl").open(encoding="utf-8") as file:
        line = next((line for line in file if f'"{example}"' in line and json.loads(line)["id"] == example), "{}")
    path = root / DATA / json.loads(line).get("media", "")
    return _shown(path) if path.is_file() else ""


def program() -> str:
    """The command `mirasol` as this shell finds it, or `python -m mirasol`."""
    ours = Path(sys.executable).parent / "mirasol"
    found = shutil.which("mirasol")
    if ours.exists() and not (found and Path(found).samefile(ours)):
        return shlex.quote(_shown(ours))
    return "mirasol" if found else f"{shlex.quote(_shown(Path(sys.executable)))} -m mirasol"


def _shown(path: Path) -> str:
    """``path`` from the current folder, if it lies below."""
    full, here = path.absolute(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
