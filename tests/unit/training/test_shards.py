"""Rows of sharded checkpoints: read again by any number of processes, and found out when they are not whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mirasol.core.errors import MirasolError
from mirasol.training.checkpoint import read_facts
from mirasol.training.curves import read_lines
from mirasol.training.shards import FIRST, FOLDER, MARK, Rows, folders_of, put_shards, remove_others
from mirasol.training.weights import load_model

TESTS = Path(__file__).parents[2]
WHOLE = torch.arange(10.0).view(5, 2)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Five rows of two processes, as ``last.ckpt`` names them."""
    folder = folders_of(tmp_path / "last.ckpt") / "rows-1"
    folder.mkdir(parents=True)
    for number, (low, high) in enumerate(((0, 3), (3, 5))):
        header = {FIRST: json.dumps({"a": low})}
        save_file({"a": WHOLE[low:high].contiguous()}, folder / f"{number:05d}-of-00002.safetensors", header)
    return folder


@pytest.mark.parametrize(("low", "high"), [(0, None), (0, 2), (2, 4), (3, 5), (5, 5)])
def test_rows_are_read_across_files(rows: Path, low: int, high: int | None) -> None:
    with contextlib.ExitStack() as stack:
        assert torch.equal(Rows(rows, stack).read("a", low, high), WHOLE[low:high])


def test_marks_become_whole_tensors_without_shards(rows: Path, tmp_path: Path) -> None:
    checkpoint = {FOLDER: "rows-1", "state_dict": {"a": {MARK: "a"}}, "list": [{MARK: "a"}, 3]}
    found = put_shards(checkpoint, tmp_path / "last.ckpt", lambda name: None)
    assert torch.equal(found["state_dict"]["a"], WHOLE)
    assert torch.equal(found["list"][0], WHOLE)
    assert found["list"][1] == 3


def test_a_checkpoint_without_all_its_rows_is_not_resumed(rows: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"global_step": 3, "mirasol_fingerprint": {}, FOLDER: "rows-1"}, checkpoint)
    assert read_facts(checkpoint).step == 3
    (rows / "00001-of-00002.safetensors").unlink()
    with pytest.raises(MirasolError, match="rows-1: holds 1 of"):
        read_facts(checkpoint)


def test_a_damaged_file_of_rows_is_named(rows: Path) -> None:
    (rows / "00000-of-00002.safetensors").write_bytes(b"no header")
    with contextlib.ExitStack() as stack, pytest.raises(MirasolError, match=r"00000-of-00002\.safetensors: damaged"):
        Rows(rows, stack)


def test_rows_of_other_checkpoints_go(rows: Path, tmp_path: Path) -> None:
    (rows.parent / "rows-0").mkdir()
    remove_others(tmp_path / "last.ckpt", "rows-1")
    assert list(rows.parent.iterdir()) == [rows]


CHANGES: dict[str, Any] = {
    "steps": 8, "checkpoint_every": 4, "batch_size": 12,
    "mute": 0.0, "blank": 0.0, "feature_mask": 0.0, "ema": 0.9, "optimizer": "muon",
}  # fmt: skip
SHARDED = {"sharding": "full"}
SCRIPT = """
import dataclasses, json, os, sys
from pathlib import Path
import pytorch_lightning as pl
import support.training as training

world, project, changes, stop = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4] == "stop"
model = training.small_model
training.small_model = lambda world: dataclasses.replace(model(world), dropout=0.0)  # its masks differ by process
save = pl.Trainer.save_checkpoint

def saved(self, *given, **named):
    save(self, *given, **named)
    named["storage_options"].wait()
    self.strategy.barrier()
    if stop:
        os._exit(0)

pl.Trainer.save_checkpoint = saved
training.train(world, project, **changes)
"""


def run(world: Path, project: Path, processes: int, ending: str = "end", **more: Any) -> None:
    """Train in ``processes`` processes; with ``stop`` they end after their first checkpoint."""
    project.mkdir(exist_ok=True)
    script = project / "script.py"
    script.write_text(SCRIPT)
    changes = CHANGES | more
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(script), str(world), str(project),
         json.dumps(changes), ending],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=900,
    )  # fmt: skip


def assert_same(project: Path, wanted: Path, difference: float = 1e-4) -> None:
    """Equal but for the order of sums: losses up to a relative ``difference``."""
    ours, theirs = (read_lines(p / "build/finetune/curves.jsonl") for p in (project, wanted))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=difference)
    assert ours[-1]["val"]["n"] == theirs[-1]["val"]["n"]
    assert ours[-1]["val"]["text"] == pytest.approx(theirs[-1]["val"]["text"], rel=1e-4)
    mine, other = (load_model(p / "build/finetune").state_dict() for p in (project, wanted))
    assert max(float((mine[name] - other[name]).abs().max()) for name in other) < 1e-3


@pytest.mark.slow
def test_a_sharded_run_resumes_with_any_number_of_processes(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path / "alone", 1)
    run(world, tmp_path / "first", 2, "stop", **SHARDED)
    assert not (tmp_path / "first/build").exists()
    for name, processes, more in (("one", 1, {}), ("copies", 2, {}), ("three", 3, SHARDED), ("four", 4, SHARDED)):
        project = tmp_path / name
        shutil.copytree(tmp_path / "first", project)
        run(world, project, processes, **more)
        assert_same(project, tmp_path / "alone", 4e-7)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_shards(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path / "alone", 1)
    run(world, tmp_path / "first", 1, "stop")
    run(world, tmp_path / "first", 2, sharding="full")
    assert_same(tmp_path / "first", tmp_path / "alone")
