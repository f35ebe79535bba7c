"""A small training in several processes under torchrun, and what a test does to one of them at a step."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.scratch import LIMIT, REPOSITORY, wait_until

TESTS = Path(__file__).parents[1]
PROGRAM = """
import errno, json, os, sys, time
from pathlib import Path
import mirasol.training.shards as shards
import support.training as training
from mirasol.pipeline.run_stage import run_stage
from mirasol.training.callbacks import Recorder

world, project, changes, fault = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
rank = int(os.environ.get("RANK", 0))
home = project / "elsewhere" if fault == "elsewhere" and rank else project
(project / f"pid-{rank}").write_text(str(os.getpid()))
begins = Recorder.on_train_batch_start

def begin(self, trainer, module, batch, number):
    begins(self, trainer, module, batch, number)
    if trainer.global_step == 5 and rank == 1:
        if fault == "raise":
            raise KeyError("h")
        if fault == "hang":
            time.sleep(600)
    (project / f"step-{rank}").write_text(str(trainer.global_step))
    time.sleep(0.02)

Recorder.on_train_batch_start = begin
if fault == "full" and rank == 1:
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    shards.write_tensors = full
try:
    run_stage("finetune", lambda params: training.train(world, home, **changes))
except SystemExit as leaving:
    (project / f"left-{rank}").write_text(str(leaving.code))
    raise
"""
CHANGES: dict[str, Any] = {"steps": 400, "checkpoint_every": 3, "val_clips": 2, "dropout": 0.0}


@contextlib.contextmanager
def torchrun(
    world: Path, project: Path, processes: int = 2, fault: str = "", **changes: Any
) -> Iterator[subprocess.Popen[str]]:
    """Train in ``processes`` processes; the block's end kills what is left of them."""
    project.mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "params.yaml", project)
    script = project / "program.py"
    script.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, *launcher, str(script), str(world), str(project), json.dumps(CHANGES | changes), fault],
        cwd=project, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        for path in (None, *project.glob("pid-*")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()) if path else child.pid, signal.SIGKILL)
        child.communicate(timeout=LIMIT)


def pid_of(project: Path, rank: int) -> int:
    return int((project / f"pid-{rank}").read_text())


def await_step(child: subprocess.Popen[str], project: Path, step: int) -> None:
    """Wait until process 0 begins ``step``."""

    def begun() -> bool:
        assert child.poll() is None, child.communicate()[0]
        path = project / "step-0"
        return path.exists() and int(path.read_text() or 0) >= step

    wait_until(f"step {step}", begun)
