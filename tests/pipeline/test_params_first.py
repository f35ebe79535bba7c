"""A wrong params.yaml stops plain DVC before it deletes an output: the project's stage `params`, then cheap ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.scratch import REPOSITORY, commit, git

from mirasol.pipeline.dvc.dvc import read_stages, select

ROW = {
    "id": "a", "media": "media/a.mp4", "start": None, "end": None, "task": "qa", "prompt": "?", "answers": ["b"],
    "split": "train", "group": "a", "family": "", "licence": "", "set": "near",
}  # fmt: skip
WORK = """\
import pathlib, sys

with open("runs/log", "a") as log:
    log.write(sys.argv[1] + "\\n")
for out in sys.argv[2:]:
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(out).write_text("{}")
"""
TRAINED = ("build/finetune", "build/reports/finetune.json")


def entry(name: str) -> dict[str, Any]:
    """A stage of the project's dvc.yaml without its code."""
    found: dict[str, Any] = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"][name]
    return found | {"deps": [dep for dep in found["deps"] if not dep.startswith("src/")]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained model, committed."""
    root = tmp_path_factory.mktemp("trained")
    git(root, "init", "--quiet")
    for key, value in (("user.name", "Test"), ("user.email", "test@localhost")):
        git(root, "config", key, value)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    (root / ".gitignore").write_text("/data/\n/build/\n/runs/\n")
    for folder in ("data", "runs"):
        (root / folder).mkdir()
    val = ROW | {"id": "b", "media": "media/b.mp4", "split": "val", "group": "b"}
    (root / "data/manifest.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(val)}\n")
    shutil.copy(REPOSITORY / "params.yaml", root)
    (root / "work.py").write_text(WORK)
    finetune = entry("finetune")
    stages = {
        "params": entry("params") | {"cmd": f"'{sys.executable}' -P -m mirasol stage params"},
        "shards": {
            "cmd": "python3 work.py shards build/shards",
            "deps": ["build/params.json"],
            "outs": ["build/shards"],
        },
        "finetune": {
            "cmd": f"python3 work.py finetune {' '.join(TRAINED)}",
            "deps": ["build/shards"],
            "params": finetune["params"],
            "outs": finetune["outs"],
        },
    }
    YAML().dump({"stages": stages}, root / "dvc.yaml")
    assert dvc(root, "repro").returncode == 0
    assert log(root) == ["shards", "finetune"]
    commit(root, "Trained")
    return root


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    return subprocess.run(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )  # in the order written


def log(root: Path) -> list[str]:
    """The cheap stages that ran since the last call."""
    path = root / "runs/log"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 2e-3\n  warmup: 50", "lr: oops\n  warmup: 50", "finetune.lr: got 'oops' (text), expected a number"),
        ("steps: 1700", "steps: 20", "finetune.warmup: got 50 with finetune.steps = 20, must be less than"),
        ('mix: ""', 'mix: "far:1"', "finetune.mix: far"),
    ],
    ids=["no number", "steps below warmup", "unknown mix"],
)
def test_a_wrong_value_leaves_the_trained_model(trained: Path, old: str, new: str, said: str) -> None:
    path = trained / "params.yaml"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    done = dvc(trained, "repro")
    path.write_text(before)
    assert done.returncode != 0 and said in done.stdout
    assert all((trained / out).exists() for out in TRAINED)
    assert log(trained) == []


def test_an_experiment_with_a_wrong_value_leaves_it_too(trained: Path) -> None:
    done = dvc(trained, "exp", "run", "-S", "finetune.steps=20")
    git(trained, "checkout", "params.yaml")
    assert done.returncode != 0 and "must be less than the phase's `steps`" in done.stdout
    assert all((trained / out).exists() for out in TRAINED)


def test_a_setting_of_no_stage_runs_none_and_one_seen_before_comes_back(trained: Path) -> None:
    path = trained / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("micro_batch: 8", "micro_batch: 4"))
    assert dvc(trained, "repro").returncode == 0
    assert log(trained) == []
    path.write_text(before.replace("steps: 1700", "steps: 1800"))
    assert dvc(trained, "repro").returncode == 0
    assert log(trained) == ["finetune"]
    path.write_text(before)
    assert "Stage 'finetune' is cached" in dvc(trained, "repro").stdout
    assert log(trained) == []


def test_every_stage_follows_the_check() -> None:
    stages = read_stages(REPOSITORY / "dvc.yaml")
    assert all(select(stages, [stage.name])[0].name == "params" for stage in stages)
