"""A small project under git and DVC with the shape of the real one: three stages in a row, params, metrics.

Its stages are one script; files in `runs/` make it fail, crash or hang.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 240.0
"""Seconds until a test gives up on an event, on however busy a machine; less than the processes here sleep."""

WORK = """\
import json, pathlib, re, subprocess, sys, time

name, *reads = sys.argv[1:]
runs = pathlib.Path("runs")
runs.mkdir(exist_ok=True)
with (runs / "log").open("a") as log:
    log.write(name + "\\n")
for step in (1, 2):
    print(f"[{name}] {step}/2 clips", flush=True)
if (runs / f"hang-{name}").exists():
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    (runs / "pids").write_text(f"{worker.pid} {__import__('os').getpid()}")
    time.sleep(300)
if (runs / f"fail-{name}").exists():
    (runs / name).mkdir(exist_ok=True)
    report = {"stage": name, "type": "MirasolError", "error": "clip 7 of data/manifest.jsonl is no video"}
    (runs / name / "error.json").write_text(json.dumps(report))
    print("some noise before the end", flush=True)
    sys.exit(2)
if (runs / f"crash-{name}").exists():
    print("a word without a report", flush=True)
    sys.exit(3)
if (runs / f"kill-{name}").exists():
    (runs / f"kill-{name}").unlink()
    import os, signal

    os.kill(os.getpid(), signal.SIGKILL)
own = re.search(name + r": .*", pathlib.Path("params.yaml").read_text())[0]
texts = [p.read_text() for read in reads for p in sorted(pathlib.Path(read).rglob("*.*")) or [pathlib.Path(read)]]
pathlib.Path("build").mkdir(exist_ok=True)
pathlib.Path("build", name).write_text("".join(texts) + own + "\\n")
if name == "second":
    pathlib.Path("reports").mkdir(exist_ok=True)
    match = float(re.search(r"score: ([0-9.]+)", own)[1])
    pathlib.Path("reports/second.json").write_text(json.dumps({"overall": {"exact_match": match}}))
if name == "third":
    pathlib.Path("build/bundle").mkdir(exist_ok=True)
    pathlib.Path("build/bundle/contract.json").write_text("{}")
"""

DVC_YAML = """\
stages:
  third:
    cmd: python3 work.py third build/second
    deps: [build/second]
    params: [third]
    outs: [build/third, build/bundle]
  first:
    cmd: python3 work.py first data
    deps: [data]
    params: [first]
    outs: [build/first]
  second:
    cmd: python3 work.py second build/first
    deps: [build/first]
    params: [second]
    outs: [build/second]
    metrics:
      - reports/second.json:
          cache: false
"""

PARAMS = "first: {x: 1}\nsecond: {score: 0.9}\nthird: {x: 1}\n"


def git(root: Path, *arguments: str) -> str:
    """Standard output of git in ``root``."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def run_dvc(root: Path, *arguments: str) -> str:
    """Standard output of dvc in ``root``."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, message: str = "change") -> None:
    """Commit everything that is not ignored."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)


def make_project(root: Path) -> Path:
    """The scratch project in ``root``, committed; none of its stages has run."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "config", "user.name", "Test")
    git(root, "config", "user.email", "test@localhost")
    git(root, "config", "commit.gpgsign", "false")
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    (root / ".gitignore").write_text("/data/\n/build/\n/runs/\n")
    (root / "work.py").write_text(WORK)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(PARAMS)
    (root / "data").mkdir()
    for number in range(3):
        (root / "data" / f"{number}.txt").write_text(f"clip {number}\n")
    run_dvc(root, "add", "data")
    commit(root, "Scratch project")
    return root


def copy_repository(root: Path, leave: tuple[str, ...] = ()) -> Path:
    """Copy the files of this repository that git does not ignore to ``root``, but those below ``leave``."""
    for name in git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (REPOSITORY / name).is_file() and not name.startswith(leave):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    return root


def start_git(root: Path) -> None:
    """Put ``root`` under git, with everything that is not ignored in its first commit."""
    git(root, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Test"), ("user.email", "test@localhost"), ("commit.gpgsign", "false")):
        git(root, "config", key, value)
    commit(root, "Start")


def ran(root: Path) -> list[str]:
    """The stages that ran since the last call, in order."""
    log = root / "runs" / "log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def tell(root: Path, what: str) -> Path:
    """Tell a stage what to do: `fail-second`, `crash-second`, `hang-second`, `kill-second`."""
    (root / "runs").mkdir(exist_ok=True)
    (root / "runs" / what).touch()
    return root / "runs" / what


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(what: str, condition, limit: float = LIMIT):  # type: ignore[no-untyped-def]
    """The first true value of ``condition()``; fails with ``what`` after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s"
        time.sleep(0.05)
    return value


def hanging_pids(root: Path) -> list[int]:
    """Processes of a stage that was told to hang: itself and a worker in a session of its own."""
    path = root / "runs" / "pids"
    text = wait_until("the hanging stage", lambda: path.exists() and path.read_text())
    pids = [int(pid) for pid in text.split()]
    path.unlink()
    return pids


def wait_gone(pids: list[int], limit: float = LIMIT) -> None:
    """Fail if one of ``pids`` still runs after ``limit`` seconds; that one is then killed."""
    try:
        wait_until(f"end of the processes {pids}", lambda: not any(map(alive, pids)), limit)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, 9)


def until(true: Callable[[], Any], seconds: float = LIMIT) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
