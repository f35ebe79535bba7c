"""Runs that random faults hit, on a Slurm of two nodes, and processes that SIGTERM stops, for `mirasol bench cluster`.

The Slurm, the project and the faults are those of `tests/cluster`; `make test-cluster` unpacks Slurm.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SEED = 20
RANKS = ((0,), (1,), (0, 1))  # to which processes of two SIGTERM goes


def faults_survived(count: int = 20, seed: int = SEED) -> dict[str, Any]:
    """The share of ``count`` random faults after which the run ended with the curves of an undisturbed one.

    Where the driver ends with an error, that must name the cause, and the driver is started again.

    Returns:
        ``value``, ``hang_seconds`` (the longest time without a sign after a fault), ``rounds``: fault, step, outcome,
        seconds, silent, difference of each.

    Raises:
        MirasolError: no Slurm is here.
    """
    from support.faults import Round, Trial, drawn, possible
    from support.slurm import Slurm, missing

    if why := missing():
        raise MirasolError(why)
    with tempfile.TemporaryDirectory() as folder:
        slurm = Slurm(Path(folder, "slurm"))
        path = os.pathsep.join([str(Path(sys.executable).parent), slurm.environment["PATH"]])
        rounds: list[Round] = []
        try:
            slurm.start()
            trial = Trial(slurm, os.environ | slurm.environment | {"PATH": path, "PYTHONUNBUFFERED": "1"}, Path(folder))
            for number, one in enumerate(drawn(seed, count, possible())):
                rounds.append(trial.run(number, one))
                print(json.dumps(dataclasses.asdict(one)), flush=True)
        finally:
            slurm.stop()
    return {
        "value": sum(one.survived for one in rounds) / count,
        "hang_seconds": max(one.silent for one in rounds),
        "rounds": [dataclasses.asdict(one) | {"survived": one.survived} for one in rounds],
    }


def sigterm(times: int = 20) -> dict[str, Any]:
    """SIGTERM to one of two processes under torchrun, and to both, ``times`` each, at different steps.

    Returns:
        ``sigterm_seconds``: ``value``, the worst time until both have left with 143, and ``each``; ``steps_lost``:
        ``value``, the most steps that were trained and not saved, and ``each``.

    Raises:
        MirasolError: a process left otherwise.
    """
    from support.torchrun import await_step, pid_of, torchrun
    from support.training import small_world

    from mirasol.training.resume import Checkpoints

    seconds, lost = [], []
    with tempfile.TemporaryDirectory() as folder:
        world = small_world(Path(folder, "world"))
        for number in range(times * len(RANKS)):
            project = Path(folder, f"run-{number}")
            with torchrun(world, project) as child:
                await_step(child, project, 4 + number % 7)
                begin = time.monotonic()
                for rank in RANKS[number % len(RANKS)]:
                    os.kill(pid_of(project, rank), signal.SIGTERM)
                said = child.communicate(timeout=120)[0]
                seconds.append(round(time.monotonic() - begin, 2))
            left = [project / f"left-{rank}" for rank in (0, 1)]
            if not all(path.exists() and path.read_text() == "143" for path in left):
                raise MirasolError(f"a process did not leave with 143:\n{said}")
            trained = max(int((project / f"step-{rank}").read_text()) for rank in (0, 1)) + 1
            lost.append(trained - Checkpoints(project / "runs/finetune", 2).steps()[0])
            print(f"SIGTERM to {RANKS[number % len(RANKS)]}: {seconds[-1]} s, {lost[-1]} steps lost", flush=True)
    return {
        "sigterm_seconds": {"value": max(seconds), "each": seconds},
        "steps_lost": {"value": max(lost), "each": lost},
    }
