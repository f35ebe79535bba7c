"""Seconds from a cancellation that Prefect's server has accepted until Slurm's queue is empty.

    PYTHONPATH=src:benchmarks python -c 'import cluster_cancel; print(cluster_cancel.cancel_seconds())'

Prefect's server and worker, a Slurm of two nodes on this machine (`make test-cluster` unpacks it), and a training that
`prefect deployment run` has started there. Each round cancels a run of which training has been logged.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError

ROOT = Path(__file__).parents[1]


def cancel_seconds(rounds: int = 3) -> dict[str, Any]:
    """The worst of ``rounds`` cancellations as `value`, and all of them as `rounds`, in seconds.

    Raises:
        MirasolError: no Slurm can be started here.
    """
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    from support import cancel
    from support.phase import phase_project
    from support.prefect_server import serving, working
    from support.scratch import wait_until
    from support.slurm import Slurm, missing
    from support.training import small_world

    if why := missing():
        raise MirasolError(why)
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mirasol-cancel-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        root = phase_project(small_world(folder / "world"), folder / "project")
        subprocess.run([sys.executable, "-m", "mirasol", "stage", "pretrain"], cwd=root, check=True)
        shutil.copytree(root / "build/pretrain", root / "build/audio_pretrain")
        cancel.prepare(root)
        for each in ("home", "worker"):
            (folder / each).mkdir()
        slurm = Slurm(folder / "slurm")
        try:
            slurm.start()
            with serving(folder / "home") as server, working(server, root, folder / "worker", slurm.environment):
                for _ in range(rounds):
                    run = cancel.start(server, root)
                    found.append(round(cancel.cancel(server, slurm, root, run), 2))
                    wait_until("cancelled run", lambda run=run: server.run(run)["state_type"] == "CANCELLED")
                    print(f"cancelled in {found[-1]:.2f} s", flush=True)
        finally:
            slurm.stop()
    return {"value": max(found), "rounds": found}
