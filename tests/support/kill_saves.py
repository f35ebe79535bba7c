"""Kills processes that save without a pause, and counts the checkpoints that cannot be used afterwards.

python tests/support/kill_saves.py FOLDER PROCESSES ROUNDS
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore

from mirasol.training.checkpoint import (
    ANYWAY,
    FINGERPRINT,
    FINISHED,
    read_checkpoint,
    write_checkpoint,
    write_sharded,
)
from mirasol.training.ranks import Ranks
from mirasol.training.resume import Checkpoints
from mirasol.training.saving import Saving
from mirasol.training.shards import MARK, Part, new_folder, put_shards

SIZE = 400_000  # numbers of a checkpoint, all equal to its step
EVERY = 7


def last_step(checkpoints: Checkpoints) -> int:
    return next(iter(checkpoints.steps()), 0)


def write(path: Path, rest: dict[str, Any], saving: Saving, folder: str, copied: dict[str, Any]) -> None:
    """As the strategies do: one file, or the rows of this process and the file that names them."""
    ranks = saving.ranks
    if ranks.world == 1:
        return write_checkpoint(rest | copied, path)
    name = f"{ranks.rank:05d}-of-{ranks.world:05d}.safetensors"
    part = Part(name, copied, {"w": ranks.rank * SIZE // ranks.world})
    write_sharded(path, {} if ranks.rank else rest | {"w": {MARK: "w"}}, part, folder, saving.meet)


def train(checkpoints: Checkpoints, ranks: Ranks) -> None:
    """Saves without end."""
    saving, weights = Saving(ranks), torch.empty(SIZE)
    saving.after = checkpoints.tidy if ranks.rank == 0 else None
    start, share = last_step(checkpoints), SIZE // ranks.world
    for step in range(start + 1, start + 1000):
        weights.fill_(step)
        rest = {"global_step": step, FINGERPRINT: {}, FINISHED: False, ANYWAY: []}
        saving.wait()
        make = functools.partial(new_folder, checkpoints.path(step))
        folder = ranks.agree(f"folder/{step}", make) if ranks.world > 1 else ""
        mine = weights[ranks.rank * share : (ranks.rank + 1) * share]
        saving.begin({"w": mine}, functools.partial(write, checkpoints.path(step), rest, saving, folder))


def unusable(checkpoints: Checkpoints) -> int:
    """How many of the checkpoints cannot be read, or do not hold what was saved."""
    count = 0
    for step in checkpoints.steps():
        try:
            path = checkpoints.path(step)
            found = put_shards(read_checkpoint(path), path, lambda name: None)["w"]
            count += found.shape != (SIZE,) or not bool((found == step).all())
        except Exception as error:
            print(step, repr(error), file=sys.stderr)
            count += 1
    return count


def kill(checkpoints: Checkpoints, processes: int, number: int, draws: random.Random) -> dict[str, int]:
    """Let ``processes`` save at least twice, and kill them at a random moment, not all at once."""
    start, children = last_step(checkpoints), []
    for rank in range(processes):
        children.append(os.fork())
        if not children[-1]:
            try:
                ranks = Ranks()
                ranks.rank, ranks.world, ranks.limit = rank, processes, 30.0
                store = str(checkpoints.runs / f"store-{number}")
                ranks.store = FileStore(store, processes) if processes > 1 else None
                train(checkpoints, ranks)
            finally:
                os._exit(1)
    end = time.monotonic() + 60
    while last_step(checkpoints) < start + 2:
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.002)
    time.sleep(draws.random() * 0.1)
    for child in draws.sample(children, processes):
        os.kill(child, signal.SIGKILL)
        time.sleep(draws.random() * 0.01)
    for child in children:
        os.waitpid(child, 0)
    last = last_step(checkpoints)
    assert checkpoints.origin("finetune", {}).step == last
    half = [p for p in checkpoints.folder.iterdir() if p.suffix == ".tmp" or p.name == f"step-{last + 1}.ckpt.d"]
    return {"unusable": unusable(checkpoints), "cut": bool(half)}


def main() -> None:
    folder, processes, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    checkpoints, draws = Checkpoints(folder, 2, EVERY), random.Random(3)
    found = [kill(checkpoints, processes, number, draws) for number in range(rounds)]
    sums = {name: sum(each[name] for each in found) for name in found[0]}
    missing = {*range(EVERY, last_step(checkpoints), EVERY)} - {*checkpoints.steps()}
    print(json.dumps(sums | {"missing": sorted(missing)}))


if __name__ == "__main__":
    main()
