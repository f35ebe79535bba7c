"""Two nodes on this machine: each has its own copy of a project and its own agent; they meet on the loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from support.scratch import LIMIT, REPOSITORY

from mirasol.data.storage import RUNS

SETTINGS: dict[str, dict[str, Any]] = {
    "training": {"micro_batch": 0, "logger": "none", "timeout": 120.0, "accelerator": "cpu"},
    "phases": {"batch_size": 4, "val_clips": 4},
    "pretrain": {"steps": 24, "warmup": 2, "checkpoint_every": 6},
    "audio_pretrain": {"steps": 2, "warmup": 1, "checkpoint_every": 2},
    "tokenizer": {"vocabulary": 200},
}


def write_params(project: Path, **changes: dict[str, Any]) -> None:
    """The repository's parameters with short phases, and with ``changes`` of keys in sections."""
    yaml = YAML()
    params = yaml.load((REPOSITORY / "params.yaml").read_text())
    for sections in (SETTINGS, changes):
        for section, values in sections.items():
            params[section].update(values)
    project.mkdir(parents=True, exist_ok=True)
    with (project / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def environment(**more: str) -> dict[str, str]:
    """Of a process that imports this repository's package."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"} | more


def stage(project: Path, *names: str) -> None:
    """Run stages in one process each."""
    for name in names:
        command = [sys.executable, "-P", "-m", "mirasol", "stage", name]
        subprocess.run(command, cwd=project, env=environment(), check=True, timeout=LIMIT, capture_output=True)


@contextlib.contextmanager
def nodes(
    folders: tuple[Path, ...], name: str, storage: str = "", environments: tuple[dict[str, str], ...] = ({}, {})
) -> Iterator[list[subprocess.Popen[str]]]:
    """Stage ``name`` by an agent in each of ``folders``, the first of which leads; the block's end kills them.

    ``environments``: more variables of each.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    agents: list[subprocess.Popen[str]] = []
    try:
        for rank, (folder, more) in enumerate(zip(folders, environments, strict=True)):
            place = ["--nnodes", str(len(folders)), "--node-rank", str(rank), "--nproc-per-node", "1"]
            meeting = ["--rdzv-backend", "static", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "1"]
            command = [sys.executable, "-P", "-m", "mirasol.pipeline.launch.agent", *place, *meeting]
            agents.append(
                subprocess.Popen(
                    [*command, "-m", "mirasol", "stage", name], cwd=folder, text=True,
                    env=environment(**{RUNS: storage} if storage else {}, **more),
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )
            )  # fmt: skip
        yield agents
    finally:
        kill(agents)


def kill(agents: list[subprocess.Popen[str]]) -> None:
    """Kill the agents and their processes, as a machine that loses power does."""
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
    for agent in agents:
        agent.wait(timeout=LIMIT)


def finish(agents: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """The status of each agent, and all that they said."""
    said = [agent.communicate(timeout=LIMIT)[0] for agent in agents]
    return [agent.returncode for agent in agents], "\n".join(said)


def await_file(agents: list[subprocess.Popen[str]], folder: Path, pattern: str) -> None:
    """Wait until ``folder`` has a file of ``pattern``."""
    deadline = time.monotonic() + LIMIT
    while not any(folder.glob(pattern)):
        ended = [agent for agent in agents if agent.poll() is not None]
        assert not ended, finish(agents)
        assert time.monotonic() < deadline, pattern
        time.sleep(0.02)
