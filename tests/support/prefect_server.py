"""One Prefect server for all tests of a folder, and commands that talk to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.scratch import LIMIT, REPOSITORY, wait_until


@dataclass
class Prefect:
    """A running server: its API, and the environment of commands that talk to it."""

    api: httpx.Client
    env: dict[str, str]

    def command(self, *arguments: str, cwd: Path, check: bool = True) -> str:
        """Output of a Python module's command line."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def read(self, path: str, **body: object) -> list[dict]:  # type: ignore[type-arg]
        """What POST ``path``/filter returns."""
        answer = self.api.post(f"{path}/filter", json=body)
        answer.raise_for_status()
        return list(answer.json())

    def run(self, flow_run_id: str) -> dict:  # type: ignore[type-arg]
        """A flow run as the server knows it."""
        return dict(self.api.get(f"/flow_runs/{flow_run_id}").raise_for_status().json())


def environment(home: Path) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "DVC_", "GIT_"))}
    return env | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        "OMP_NUM_THREADS": "1",
    }


def kill(process: subprocess.Popen[bytes]) -> None:
    # Hard, and the whole group: a worker whose server is gone outlives SIGTERM.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
    except OSError:
        return False


class _Patient(httpx.HTTPTransport):
    """Repeats what the server refuses while its database is busy, as Prefect's own client does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        send = super().handle_request

        def accepted() -> httpx.Response | None:
            answer = send(request)
            return answer if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE else answer.close()

        return wait_until("an answer other than 503", accepted)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """The server, on a free port, with its database in a temporary folder."""
    with serving(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@contextlib.contextmanager
def serving(home: Path, host: str = "127.0.0.1", more: Mapping[str, str] = {}) -> Iterator[Prefect]:
    """A server of this machine that keeps its database in ``home``; ``more`` goes into the environment of all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = environment(home) | more
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", f"--host={host}", f"--port={port}", "--no-ui"],
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_until(f"the server ({home}/server.log)", lambda: _healthy(url))
        with httpx.Client(base_url=url, timeout=LIMIT, transport=_Patient()) as api:
            yield Prefect(api, env | {"PREFECT_API_URL": url})
    finally:
        kill(server)


@contextlib.contextmanager
def working(server: Prefect, root: Path, folder: Path, more: Mapping[str, str] = {}) -> Iterator[None]:
    """Deploy the project ``root``, and serve it by a worker that is started in another ``folder``.

    Only MIRASOL_HOME tells the worker the project's folder. ``more`` goes into its environment.
    """
    server.command(*["prefect", "work-pool", "create", "mirasol", "--type", "process", "--overwrite"], cwd=root)
    server.command("prefect", "--no-prompt", "deploy", "--all", cwd=root)
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "mirasol"],
            cwd=folder,
            env=server.env | more | {"MIRASOL_HOME": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        kill(worker)
