"""Kills a run that makes shards at the call that a seed draws: `kill_shards.py DATA FOLDER SEED...`.

A moment is the number of a call or return of a Python or C function, counted by the interpreter: so the same seed
kills at the same place of the program. Every run is a fork of this process, which saves the imports. Seeds that are
odd kill two runs one after the other. Prints one JSON line: calls of a whole run, and the moments by seed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from support.inline import inline_workers
from support.media import TINY_CLIP

from mirasol.data.shards import build as shards
from mirasol.data.shards.config import ShardsSpec

SPEC = ShardsSpec(clips_per_shard=3, workers=1)


def run(data: Path, folder: Path, moment: int = 0) -> int:
    """Make shards in a fork, which kills itself at ``moment``; returns its calls if it comes to its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
        sys.setprofile(count)
        shards.build_shards(data, folder / "shards", TINY_CLIP, SPEC, folder / "parts")
        sys.setprofile(None)
        os.write(writer, str(calls).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 100)
    os.close(reader)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if killed != bool(moment) or (not killed and not said):
        raise RuntimeError(f"a run with moment {moment} ended with status {status}")
    return int(said or 0)


def main() -> None:
    data, folder, seeds = Path(sys.argv[1]), Path(sys.argv[2]), [int(s) for s in sys.argv[3:]]
    shards.open_workers = inline_workers
    calls = run(data, folder / "whole")
    reused = run(data, folder / "whole")  # with all parts there
    moments = {}
    for seed in seeds:
        draw = random.Random(seed)
        moments[seed] = [draw.randrange(1, calls)] + [draw.randrange(1, reused)] * (seed % 2)
        for moment in moments[seed]:
            run(data, folder / str(seed), moment)
        (folder / str(seed) / "shards").mkdir(parents=True, exist_ok=True)
        (folder / str(seed) / "shards").rename(folder / str(seed) / "killed")  # for the test to look at
        for path in (folder / str(seed) / "killed").iterdir():
            (folder / str(seed) / "shards").mkdir(exist_ok=True)
            os.link(path, folder / str(seed) / "shards" / path.name)
        run(data, folder / str(seed))
    print(json.dumps({"calls": calls, "moments": moments}))


if __name__ == "__main__":
    main()
