"""Two processes train as one: torchrun, gloo, CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.training import train

from mirasol.training.curves import read_lines
from mirasol.training.weights import load_model

TESTS = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from support.training import train
for name, init in (("pretrain", None), ("audio_pretrain", "pretrain"), ("finetune", "audio_pretrain")):
    metrics = train(Path(sys.argv[1]), Path(sys.argv[2]), name, init, devices=2, dropout=0.0)
    assert metrics["steps"] == 4, metrics
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    together, alone = tmp_path / "together", tmp_path / "alone"
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script), str(world), str(together)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )  # fmt: skip
    for name, init in (("pretrain", None), ("audio_pretrain", "pretrain"), ("finetune", "audio_pretrain")):
        train(world, alone, name, init, dropout=0.0)
        mine, theirs = (read_lines(p / "build" / name / "curves.jsonl") for p in (alone, together))
        assert [line["step"] for line in theirs] == [line["step"] for line in mine]
        assert theirs[-1]["val"]["n"] == mine[-1]["val"]["n"]  # each clip was scored once
        # equal but for the order of sums
        assert theirs[-1]["text"] == pytest.approx(mine[-1]["text"], rel=1e-4)
    load_model(together / "build" / "finetune")
