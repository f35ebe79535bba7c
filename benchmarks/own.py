"""Own data with proposed settings, next to the majority answer and a linear model: what does the model add?

    python benchmarks/own.py --drone ../shared/data/drone --fsdd ../shared/data/fsdd --json runs/own.json

Each set is imported, probed, given the proposed settings and trained in a separate folder, without DVC; a set whose
figures are there is not trained again. The plan (docs/decisions/0080): settings are chosen on train and val alone, the
test split is scored once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from folds import write_fold
from ruamel.yaml import YAML
from shaken import make_few, make_shaken

from mirasol.core.files import write_json
from mirasol.pipeline import paths
from mirasol.pipeline.own import Start, begin_from, facts_of, find_start
from mirasol.pipeline.params.proposal import as_yaml, propose
from mirasol.pipeline.stages import STAGES

Source = Callable[[Path], list[str]]  # the folder of a set -> words of its import, made there if need be
TRAINED = list(STAGES)[: list(STAGES).index("evaluate") + 1]
FEW = {"train": 60, "val": 30, "test": 200}  # annotated clips of the sets `few` and `unlabelled`
UNLABELLED = 600  # further clips of the latter
QUICK = {"finetune.steps": "4", "finetune.warmup": "1", "finetune.checkpoint_every": "2", "evaluate.resamples": "100"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    parser.add_argument("--work", type=Path, default=Path("runs/own"), help="a folder for each set")
    parser.add_argument("--drone", type=Path, help="the drone detection set: video/ and audio/")
    parser.add_argument("--fsdd", type=Path, help="the Free Spoken Digit Dataset")
    parser.add_argument("--data", type=Path, action="append", default=[], help="media with annotations.csv; repeatable")
    parser.add_argument(
        "--only", action="append", help="shaken, few, unlabelled, drone, fsdd or the name of a --data folder"
    )
    parser.add_argument("--from", dest="start", type=Path, help="weights to start from")
    parser.add_argument("--rounds", type=int, default=1, help="seeds of each set, from 1")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate on train and val over so many blocks")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="instead of the proposed value")
    parser.add_argument("--quick", action="store_true", help="20 clips and 4 steps: to see that it runs")
    given = parser.parse_args()
    start = find_start(given.start) if given.start else None
    sets: dict[str, Source] = {
        "shaken": lambda folder: shaken(folder, 20 if given.quick else 200),
        "few": lambda folder: few(folder, quick=given.quick),
        "unlabelled": lambda folder: [
            *few(folder, quick=given.quick),
            "--unlabelled",
            str(folder / "media" / "unlabelled"),
        ],
    }
    for name, media in (("drone", given.drone), ("fsdd", given.fsdd)):
        if media:
            sets[name] = constant([name, "--media", str(media.resolve())])
    for media in given.data:
        sets[media.resolve().name] = constant(generic(media.resolve()))
    found: dict[str, Any] = {}
    for name, source in sets.items():
        if name not in (given.only or sets.keys() - {"few", "unlabelled"}):
            continue
        for seed, fold in itertools.product(range(1, given.rounds + 1), range(given.folds) if given.folds else [None]):
            folder = (given.work / (name if seed == 1 else f"{name}-{seed}")).resolve()
            imported(folder, source)
            changed = dict(pair.split("=", 1) for pair in given.set) | {"training.seed": str(seed)}
            if not (folder / paths.REPORTS / "eval.json").is_file():  # scored once: the settings of that run stay
                proposed(folder, start, changed | (QUICK if given.quick else {}))
            if fold is not None:
                folder = one_fold(folder, fold, given.folds)
            report = trained(folder, start)
            words = [name, *([f"seed {seed}"] if given.rounds > 1 else []), *([f"fold {fold}"] if given.folds else [])]
            key = ", ".join(words)
            found[key] = figures(report)
            print(f"{key}: {report['baselines']['verdict']} {report['baselines']['headline']['why']}", flush=True)
    if given.folds:
        for name in ("model", "majority", "linear"):
            print(f"{name}: {statistics.mean(cell[name]['exact_match'] for cell in found.values()):.4f} over the folds")
    if given.json:
        write_json(given.json, found)


def constant(words: list[str]) -> Source:
    """The import of a set that lies somewhere."""
    return lambda folder: words


def shaken(folder: Path, clips: int) -> list[str]:
    """The made set: an object that moves or rests, a shaking camera, noise."""
    return generic(make_shaken(folder / "media", clips))


def few(folder: Path, *, quick: bool) -> list[str]:
    """The made set with few annotated clips, and a folder of clips without texts."""
    counts, bare = ({"train": 8, "val": 4, "test": 8}, 12) if quick else (FEW, UNLABELLED)
    return generic(make_few(folder / "media", counts, bare))


def generic(media: Path) -> list[str]:
    """Words of the import of media with annotations.csv."""
    return ["generic", "--annotations", str(media / "annotations.csv"), "--media", str(media)]


def imported(folder: Path, source: Source) -> None:
    """The data folder of a set, unless ``folder`` has it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data" / "manifest.jsonl").is_file():
        mirasol(folder, "data", "import", *source(folder), "--out", "data")


def proposed(folder: Path, start: Start | None, changed: Mapping[str, str]) -> None:
    """Write the proposed params.yaml, with other values of the keys of ``changed``, `SECTION.KEY`."""
    chosen = propose(facts_of(folder / "data"), start.values if start else {})
    for key, value in changed.items():
        chosen[key] = (YAML(typ="safe").load(value), "as the benchmark was told")
    (folder / "params.yaml").write_text(as_yaml(chosen, folder.name), encoding="utf-8")


def one_fold(folder: Path, number: int, folds: int) -> Path:
    """A folder of fold ``number`` with the settings of the whole set and its encoded clips."""
    out = folder / f"fold-{number}"
    write_fold(folder / "data", out / "data", number, folds)
    shutil.copy(folder / "params.yaml", out / "params.yaml")
    (folder / "runs" / "shards").mkdir(parents=True, exist_ok=True)
    (out / "runs").mkdir(exist_ok=True)
    if not (out / "runs" / "shards").exists():
        (out / "runs" / "shards").symlink_to(folder / "runs" / "shards")
    return out


def trained(folder: Path, start: Start | None) -> dict[str, Any]:
    """The report of the evaluation, made unless ``folder`` has it."""
    done = folder / paths.REPORTS / "eval.json"
    if not done.is_file():
        for stage in TRAINED:
            mirasol(folder, "stage", stage)
            if stage == "tokenizer" and start is not None:
                begin_from(folder, start, print)
    report: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    return report


def mirasol(folder: Path, *words: str) -> None:
    """`mirasol WORDS` in ``folder``, with the code of this checkout."""
    source = Path(__file__).resolve().parents[1] / "src"
    path = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH", "")]))
    subprocess.run(
        [sys.executable, "-m", "mirasol", *words], cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=True
    )


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """``model``, ``majority`` and ``linear`` with their intervals, the paired differences, and the verdict."""
    found = report["baselines"]
    return found["overall"] | {"clips": found["headline"]["clips"], "verdict": found["verdict"]}


if __name__ == "__main__":
    main()
