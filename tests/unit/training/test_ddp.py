"""Two processes train as one: torchrun, gloo, CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.training import train, unlabelled

from mirasol.training.curves import read_lines
from mirasol.training.weights import load_model

TESTS = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from support.training import train
for name, init in (("pretrain", None), ("audio_pretrain", "pretrain"), ("finetune", "audio_pretrain")):
    metrics = train(Path(sys.argv[1]), Path(sys.argv[2]), name, init, dropout=0.0)
    assert metrics["steps"] == 4, metrics
"""


MIXED = """
import sys
from pathlib import Path
from support.training import train
train(Path(sys.argv[1]), Path(sys.argv[2]), "pretrain", sharding=sys.argv[3], dropout=0.0, **{settings})
"""
SETTINGS = {"tasks": "caption unlabelled", "batch_size": 2, "steps": 6, "checkpoint_every": 6}


def together(script: Path, text: str, *arguments: str | Path) -> None:
    """Run ``text`` as ``script`` in two processes."""
    script.write_text(text)
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_of_which_one_has_no_text_learn_what_one_does(world: Path, tmp_path: Path, sharding: str) -> None:
    """A clip each: some steps have a text in one process, some in none."""
    some = unlabelled(world, tmp_path / "world", texts=6)
    together(tmp_path / "train.py", MIXED.format(settings=SETTINGS), some, tmp_path / "two", sharding)
    train(some, tmp_path / "one", "pretrain", dropout=0.0, **SETTINGS)
    mine, theirs = (read_lines(tmp_path / name / "build/pretrain/curves.jsonl")[-1] for name in ("one", "two"))
    for name in ("text", "latent", "video", "grad_norm"):
        assert theirs[name] == pytest.approx(mine[name], rel=1e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    both, alone = tmp_path / "together", tmp_path / "alone"
    together(tmp_path / "train.py", SCRIPT, world, both)
    for name, init in (("pretrain", None), ("audio_pretrain", "pretrain"), ("finetune", "audio_pretrain")):
        train(world, alone, name, init, dropout=0.0)
        mine, theirs = (read_lines(p / "build" / name / "curves.jsonl") for p in (alone, both))
        assert [line["step"] for line in theirs] == [line["step"] for line in mine]
        assert theirs[-1]["val"]["n"] == mine[-1]["val"]["n"]  # each clip was scored once
        # equal but for the order of sums
        assert theirs[-1]["text"] == pytest.approx(mine[-1]["text"], rel=1e-4)
    load_model(both / "build" / "finetune")
