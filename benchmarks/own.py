"""Own data with proposed settings, next to the majority answer and a linear model: what does the model add?

    python benchmarks/own.py --drone ../shared/data/drone --fsdd ../shared/data/fsdd --json runs/own.json

Each set is imported, probed, given the proposed settings and trained in a separate folder, without DVC; a set whose
figures are there is not trained again. The plan (docs/decisions/0080): settings are chosen on train and val alone, the
test split is scored once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shaken import make_shaken

from mirasol.core.files import write_json
from mirasol.pipeline.own import Start, begin_from, facts_of, find_start, values_of
from mirasol.pipeline.params.proposal import as_yaml, propose
from mirasol.pipeline.stages import STAGES

Source = Callable[[Path], list[str]]  # the folder of a set -> words of its import, made there if need be
TRAINED = [name for name in STAGES if name not in ("export", "benchmark")]
QUICK = {"steps": 4, "warmup": 1, "checkpoint_every": 2, "resamples": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    parser.add_argument("--work", type=Path, default=Path("runs/own"), help="a folder for each set")
    parser.add_argument("--drone", type=Path, help="the drone detection set: video/ and audio/")
    parser.add_argument("--fsdd", type=Path, help="the Free Spoken Digit Dataset")
    parser.add_argument("--data", type=Path, action="append", default=[], help="media with annotations.csv; repeatable")
    parser.add_argument("--only", action="append", help="shaken, drone, fsdd or the name of a --data folder")
    parser.add_argument("--from", dest="start", type=Path, help="weights to start from")
    parser.add_argument("--rounds", type=int, default=1, help="seeds of each set, from 1")
    parser.add_argument("--quick", action="store_true", help="20 clips and 4 steps: to see that it runs")
    given = parser.parse_args()
    start = find_start(given.start) if given.start else None
    sets: dict[str, Source] = {"shaken": lambda folder: shaken(folder, 20 if given.quick else 200)}
    for name, media in (("drone", given.drone), ("fsdd", given.fsdd)):
        if media:
            sets[name] = constant([name, "--media", str(media.resolve())])
    for media in given.data:
        sets[media.resolve().name] = constant(generic(media.resolve()))
    found: dict[str, Any] = {}
    for name, source in sets.items():
        if given.only and name not in given.only:
            continue
        for seed in range(1, given.rounds + 1):
            folder = (given.work / (name if seed == 1 else f"{name}-{seed}")).resolve()
            report = trained(folder, source, start, seed=seed, quick=given.quick)
            key = name if given.rounds == 1 else f"{name}, seed {seed}"
            found[key] = figures(report)
            print(f"{key}: {report['baselines']['verdict']} {report['baselines']['headline']['why']}", flush=True)
    if given.json:
        write_json(given.json, found)


def constant(words: list[str]) -> Source:
    """The import of a set that lies somewhere."""
    return lambda folder: words


def shaken(folder: Path, clips: int) -> list[str]:
    """The made set: an object that moves or rests, a shaking camera, noise."""
    return generic(make_shaken(folder / "media", clips))


def generic(media: Path) -> list[str]:
    """Words of the import of media with annotations.csv."""
    return ["generic", "--annotations", str(media / "annotations.csv"), "--media", str(media)]


def trained(folder: Path, source: Source, start: Start | None, *, seed: int, quick: bool) -> dict[str, Any]:
    """The report of the evaluation, made unless ``folder`` has it."""
    done = folder / "reports" / "eval.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data" / "manifest.jsonl").is_file():
            mirasol(folder, "data", "import", *source(folder), "--out", "data")
        text = as_yaml(propose(facts_of(folder / "data"), values_of(start.config) if start else {}), folder.name)
        text = re.sub(r"(?m)^  seed: 1$", f"  seed: {seed}", text)
        if quick:
            for key, value in QUICK.items():
                text = re.sub(rf"(?m)^(  {key}): .*$", rf"\1: {value}", text)
        (folder / "params.yaml").write_text(text, encoding="utf-8")
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
