"""`mirasol evaluate`: a trained model scored outside the pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mirasol.commands.say import table
from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.evaluation.evaluate import evaluate
from mirasol.params.load import load_params
from mirasol.stages.paths import CACHE, DATA, SHARDS, TOKENIZER


def score(split: str, weights: Path, out: Path) -> None:
    """Write ``out/scores.json`` and predictions, and print a table: families by condition, chance beside them."""
    if split not in ("val", "test"):
        raise MirasolError(f"--split {split}: expected val or test")
    params = load_params()
    spec = dataclasses.replace(params.evaluate, split=split)
    training = params.training
    report = evaluate(
        weights, SHARDS, TOKENIZER, DATA, spec, out, training.threads, CACHE, training.accelerator, training.max_damaged
    )
    write_json(out / "scores.json", report)
    rows: list[tuple[str, ...]] = [("", "exact match", "95 % interval", "chance", "muted", "blanked", "n")]
    for name in ("overall", *report["families"]):
        full, muted, blanked = (_cell(part, name) for part in (report, report["muted"], report["blanked"]))
        low, high = full["ci95"]
        right, without_sound, without_picture = (f"{cell['exact_match']:.3f}" for cell in (full, muted, blanked))
        interval, chance = f"{low:.3f} to {high:.3f}", f"{full['chance']:.3f}"
        rows.append((name, right, interval, chance, without_sound, without_picture, f"{full['n']:,}"))
    table(rows, right=(1, 2, 3, 4, 5, 6))
    print(out / "scores.json")


def _cell(part: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = part["overall"] if name == "overall" else part["families"][name]
    return found
