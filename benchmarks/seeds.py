"""The pipeline's result over seeds: mean and worst accuracy, overall and per family.

    mirasol bench seeds [--seeds 1 2 3 4 5] [--set model.combiner=ttm ...] [--without audio_pretrain] [--json FILE]

Needs data/, build/shards and build/tokenizer (`dvc repro shards`). Each seed trains in a separate folder under
runs/seeds with the project's params.yaml, `training.seed` apart, and scores the test split once. A run that was
interrupted goes on where it was; a seed that is done is not repeated, unless params, code or shards have changed.
`--jobs 2` runs two at a time: with `--set training.threads=1` that is the faster way on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import commit, machine, table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mirasol.core import code
from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file, write_json

SHARED = ("data", "build/shards", "build/tokenizer", "runs/cache")
STAGES = ("pretrain", "audio_pretrain", "finetune", "evaluate")
CONDITIONS = ("muted", "blanked", "shuffled", "swapped")


def prepare(folder: Path, seed: int, settings: list[str]) -> None:
    """A workspace with the shards of this one, and its params with ``settings`` (SECTION.KEY=VALUE) and the seed.

    Each seed trains in one process, which makes the same weights as two (docs/decisions/0086): seeds side by side
    use the cores better than processes that wait for each other.
    """
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    for setting in [*settings, f"training.seed={seed}"]:
        change(params, setting)
    for name in SHARED:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(Path(name).absolute())
    yaml.dump(params, folder / "params.yaml")
    (folder / "cluster.yaml").write_text("devices: 1\n", encoding="utf-8")


def change(params: dict[str, Any], setting: str) -> None:
    """Set one key of ``params`` by SECTION.KEY=VALUE.

    Raises:
        MirasolError: it has another form, no such key, or a value that is no YAML.
    """
    found = re.fullmatch(r"(\w+)\.(\w+)=(.*)", setting, re.DOTALL)
    if not found:
        raise MirasolError(f"--set {setting}: expected SECTION.KEY=VALUE, such as training.threads=1")
    section, key, value = found.groups()
    if not isinstance(params.get(section), dict) or key not in params[section]:
        raise MirasolError(f"--set {setting}: params.yaml has no {section}.{key}")
    try:
        params[section][key] = YAML().load(value) if value else ""
    except YAMLError as error:
        raise MirasolError(f"--set {setting}: {value} is no YAML value, expected one as in params.yaml") from error


def kind_of(settings: list[str], without: str) -> str:
    """Eight digits that change with all that decides a result but the seed: params, code, shards and tokenizer.

    Raises:
        MirasolError: shards or tokenizer are missing.
    """
    inputs = [Path("build/shards/shards.json"), *sorted(Path("build/tokenizer").glob("*"))]
    if len(inputs) == 1 or not inputs[0].is_file():
        raise MirasolError(f"{inputs[0]} or build/tokenizer is missing: run `dvc repro shards` first")
    params = Path("params.yaml").read_text(encoding="utf-8")
    written = code.code_hash({*code.TRAINING, *code.STAGES["evaluate"]})
    decides = params, settings, without, written, [sha256_file(path) for path in inputs]
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:8]


def train(folder: Path, without: str) -> dict[str, Any]:
    """Run the stages that are not done; returns the evaluation's report."""
    before = Path("build") / STAGES[STAGES.index(without) - 1] if without else None
    for stage in STAGES:
        done = folder / "done" / stage
        if done.exists():
            continue
        if stage == without:
            assert before is not None
            place = folder / "build" / stage
            if not place.is_symlink():  # a run may have ended before the stage was marked as done
                place.symlink_to((folder / before).absolute())
        else:
            with (folder / f"{stage}.log").open("a") as log:
                command = [sys.executable, "-m", "mirasol", "stage", stage]
                ended = subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False).returncode
            if ended:
                raise MirasolError(f"{folder}: stage {stage} failed, see {folder / stage}.log")
        done.parent.mkdir(exist_ok=True)
        done.touch()
        print(f"{folder.name}: {stage}", flush=True)
    report: dict[str, Any] = json.loads((folder / "build" / "reports" / "eval.json").read_text(encoding="utf-8"))
    return report


def summarise(reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean, worst and every seed's exact match: overall, of each family, and under each condition."""

    def over(values: list[float]) -> dict[str, Any]:
        return {"mean": round(statistics.mean(values), 6), "worst": min(values), "seeds": values}

    every = list(reports.values())
    return {
        "overall": over([r["overall"]["exact_match"] for r in every]),
        "families": {
            name: over([r["families"][name]["exact_match"] for r in every]) for name in sorted(every[0]["families"])
        },
        "conditions": {c: over([r[c]["overall"]["exact_match"] for r in every]) for c in CONDITIONS if c in every[0]},
    }


def main() -> None:
    """Train, score, print, write."""
    parser = argparse.ArgumentParser(prog="mirasol bench seeds", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="another parameter")
    parser.add_argument("--without", default="", choices=["", "audio_pretrain"], help="leave out a phase")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    Path("runs/cache").mkdir(parents=True, exist_ok=True)
    kind = kind_of(options.set, options.without)
    folders = {seed: Path("runs/seeds").absolute() / f"{kind}-{seed}" for seed in options.seeds}
    for seed, folder in folders.items():
        prepare(folder, seed, options.set)
    with ThreadPoolExecutor(options.jobs) as pool:
        reports = dict(
            zip(folders, pool.map(lambda folder: train(folder, options.without), folders.values()), strict=True)
        )
    found = summarise(reports)
    rows = [("overall", found["overall"]), *found["families"].items()]
    table([("", "mean", "worst"), *((name, f"{v['mean']:.2%}", f"{v['worst']:.2%}") for name, v in rows)])
    if options.json:
        about = {"name": "seeds", "commit": commit(), "machine": machine(), "set": options.set}
        write_json(options.json, {**about, "without": options.without, "seeds": options.seeds, **found})
        print(f"-> {options.json}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # trainings side by side do not wait in loops
    try:
        main()
    except MirasolError as error:
        sys.exit(f"error: {error}")
