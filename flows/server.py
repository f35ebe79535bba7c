"""Prefect's server for one command, so that a laptop needs none.

Prefect starts one itself where no server is configured, but a SIGTERM or SIGKILL to the flow leaves that one running
for ever. This one is a supervised child: it ends with us.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.process import supervised

START_LIMIT = 90.0
"""Seconds; the first start makes the database and takes several times longer."""

# Only schedules and automations need these; on a small machine they slow the training down.
_OFF = ("SCHEDULER", "LATE_RUNS", "TRIGGERS", "FOREMAN", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "REPOSSESSOR")


def ensure_server() -> None:
    """Use the configured Prefect server, else start one that ends with this process.

    Its database in PREFECT_HOME keeps the runs of earlier commands. `atexit` stops it last, after Prefect has sent its
    log lines.

    Raises:
        MirasolError: it did not start.
    """
    if PREFECT_API_URL.value():
        return
    home = Path(PREFECT_HOME.value())
    home.mkdir(parents=True, exist_ok=True)
    until_exit = contextlib.ExitStack()
    atexit.register(until_exit.close)
    log = home / "server.log"
    port = _free_port()
    env = dict(os.environ) | {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _OFF}
    command = [sys.executable, *f"-m prefect server start --host 127.0.0.1 --port {port}".split()]
    file = until_exit.enter_context(log.open("w"))
    child = until_exit.enter_context(supervised(command, output=file, env=env, grace=3.0))
    address = f"http://127.0.0.1:{port}/api"
    _wait_for(address, child, log)
    until_exit.enter_context(temporary_settings({PREFECT_API_URL: address}))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, child: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{address}/health", timeout=5),
        ):
            return
        ended = child.poll()
        if ended is not None or time.monotonic() > deadline:
            what = f"took over {START_LIMIT:.0f} s to start" if ended is None else f"ended with status {ended}"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise MirasolError(f"the embedded Prefect server {what}; plain `dvc repro` needs none. {log} ends:\n{last}")
        time.sleep(0.1)
