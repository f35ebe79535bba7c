"""The processes of a phase on this machine."""

from __future__ import annotations

import os
import signal
import sys

from mirasol.pipeline.dvc.process import stream
from mirasol.pipeline.launch.config import Cluster
from mirasol.pipeline.launch.lines import Lines

AGENT = ("-P", "-m", "mirasol.pipeline.launch.agent")  # -P: the project has folders named like modules


def run(stage: str, cluster: Cluster, lines: Lines) -> int:
    """Train ``stage`` in ``cluster.devices`` processes of this machine; they end when this one does.

    Returns:
        The exit status of the process that failed first, 128 + N for signal N; 0 if none failed.
    """
    agent = [sys.executable, *AGENT, "--standalone", "--nproc-per-node", str(cluster.devices)]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    return stream(
        [*agent, "-m", "mirasol", "stage", stage], lines.say, env=environment, ended_by=signal.SIGTERM
    )  # SIGTERM: the processes save and leave, where SIGINT would interrupt them
