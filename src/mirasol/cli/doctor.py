"""`mirasol doctor`: checks this machine and names the command that fixes each problem."""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import typer

from mirasol.cli import control_plane
from mirasol.cli.console import Colour, Json, painted, print_json
from mirasol.core.errors import MirasolError, install
from mirasol.core.machine import cores

app = typer.Typer()
State = Literal["ok", "note", "missing"]
COLOURS: dict[State, Colour] = {"ok": "green", "note": "yellow", "missing": "red"}
GIB = 2**30
DISK_NEEDED, DISK_WANTED = 1 * GIB, 5 * GIB  # the demo's data, shards, checkpoints and cache take about 2 GiB
MEMORY_WANTED = 4 * GIB
PYTHONS = ((3, 11), (3, 14))  # the oldest and the newest
# Packages that each part of the product needs, by the extra that brings them; BASE come with all of them.
PARTS = {
    "runtime": ("onnxruntime",),
    "train": ("torch", "torchaudio", "pytorch-lightning", "webdataset", "sentencepiece", "safetensors", "dvc", "onnx"),
    "flows": ("prefect",),
}
SERVICE = ("fastapi", "pydantic", "starlette", "uvicorn", "websockets", "prometheus_client")
BASE = ("numpy", "av", "rich", "ruamel.yaml", "typer")


@dataclass(frozen=True)
class Finding:
    """One checked subject. ``fix`` is a command; a ``missing`` one makes the doctor exit with 1."""

    state: State
    subject: str
    text: str
    fix: str = ""


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine and name the command that fixes each problem.

    Exits with 1 if something is missing.

    Example:  mirasol doctor
    """
    missing = False
    found = []
    for finding in examine():
        missing |= finding.state == "missing"
        if as_json:
            found.append(dataclasses.asdict(finding))
            continue
        fix = f"\n{'':28}-> {finding.fix}" if finding.fix else ""
        state = painted(f"{finding.state:<8}", COLOURS[finding.state])
        print(f"{state}{finding.subject:<20}{finding.text}{fix}", flush=True)
    if as_json:
        print_json({"findings": found})
    raise typer.Exit(1 if missing else 0)


def extra_of(package: str) -> str:
    """The extra that brings an importable package."""
    return {"onnxruntime": "runtime", "prefect": "flows", **dict.fromkeys(SERVICE, "serve")}.get(package, "train")


def examine(root: str | Path = ".") -> Iterator[Finding]:
    """Every finding about this machine and the project folder ``root``, quick ones first."""
    root = Path(root)
    project = (root / "params.yaml").is_file()
    yield _python()
    yield from _packages(root / "requirements.lock", project)
    yield _cores()
    yield _memory()
    yield from _gpu()
    yield from _codecs()
    yield _disk(root)
    yield from (Finding(state, "control plane", text, fix) for state, text, fix in control_plane.checks())
    if project:
        yield from _git(root)
        yield from _dvc(root)
    else:
        yield Finding("note", "project", f"{root.resolve()} holds no params.yaml", "cd to the project's folder")


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("ok", "python", found)
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    fix = f"make setup PYTHON=/path/to/python{newest}"
    return Finding("missing", "python", f"{found}, expected {oldest} to {newest}", fix)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def locked(lock: Path) -> dict[str, str]:
    """Name -> version of every ``name==version`` line of a lock file; empty without a file."""
    if not lock.is_file():
        return {}
    lines = lock.read_text(encoding="utf-8").splitlines()
    return dict(line.strip().split("==", 1) for line in lines if re.fullmatch(r"\s*[\w.-]+==\S+\s*", line))


def _packages(lock: Path, project: bool) -> Iterator[Finding]:
    """Installed versions against the lock; without a lock, the packages that each part needs."""
    pins = locked(lock)
    if pins:
        have = {name: _version(name) for name in pins}
        absent = [name for name, version in have.items() if version is None]
        # A build's local tag (2.13.0+cpu) does not count.
        others = [f"{n} {v}, locked {pins[n]}" for n, v in have.items() if v is not None and v.split("+")[0] != pins[n]]
        if absent:
            yield Finding("missing", "packages", f"not installed: {_some(absent)}", "make setup")
        if others:
            yield Finding("note", "packages", f"not as in the lock: {_some(others)}", "rm .venv/.ready; make setup")
        if not absent and not others:
            yield Finding("ok", "packages", f"all {len(pins)} as in {lock.name}")
    elif absent := [name for name in BASE if _version(name) is None]:
        yield Finding("missing", "packages", f"not installed: {_some(absent)}", "make setup")
    for extra, names in PARTS.items():
        part = "answer and stream" if extra == "runtime" else extra
        if absent := [name for name in names if _version(name) is None]:
            if "onnxruntime" in absent and _version("onnxruntime-gpu"):
                continue
            fix = "make setup" if pins else install(extra)
            yield Finding("missing" if project else "note", part, f"not installed: {_some(absent)}", fix)
        else:
            yield Finding("ok", part, ", ".join(f"{name} {_version(name)}" for name in names[:3]))


def _some(items: Iterable[str], shown: int = 6) -> str:
    listed = list(items)
    return ", ".join(listed[:shown]) + (f" and {len(listed) - shown} more" if len(listed) > shown else "")


def _cores() -> Finding:
    usable = cores()
    if usable >= 2:
        return Finding("ok", "cores", str(usable))
    return Finding("note", "cores", f"{usable}: set training.threads, shards.workers and benchmark.threads to 1")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    found = f"{total / GIB:.1f} GiB"
    if total >= MEMORY_WANTED:
        return Finding("ok", "memory", found)
    return Finding("note", "memory", f"{found}, the demo wants {MEMORY_WANTED // GIB}: set the workers to 1")


def _gpu() -> Iterator[Finding]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    cards: list[str] = []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        cards = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    except subprocess.TimeoutExpired:
        yield Finding("note", "gpu", "nvidia-smi does not answer within 20 s: the driver hangs")
        return
    except (OSError, subprocess.CalledProcessError):
        pass
    if not cards:
        yield Finding("ok", "gpu", "none: everything runs on the CPU")
        return
    yield Finding("ok", "gpu", "; ".join(cards))
    if _version("torch") is None:
        return
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        yield Finding("ok", "gpu in torch", f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} device(s)")
    else:
        why = "was built without CUDA" if torch.version.cuda is None else f"(CUDA {torch.version.cuda}) cannot use it"
        fix = "make setup TORCH=cuda"
        yield Finding("note", "gpu in torch", f"torch {torch.__version__} {why}", fix)


def _codecs() -> Iterator[Finding]:
    if _version("av") is None:
        return  # named among the packages
    from mirasol.media.container import CODECS, PYAV_WHEEL, has_codec  # needs PyAV

    absent = [(name, mode, use) for name, mode, use in CODECS if not has_codec(name, mode)]
    for name, mode, use in absent:
        yield Finding("missing", "codecs", f"no {name} {'decoder' if mode == 'r' else 'encoder'}: {use}", PYAV_WHEEL)
    if not absent:
        yield Finding("ok", "codecs", f"PyAV {_version('av')}: " + ", ".join(sorted({name for name, _, _ in CODECS})))


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    found = f"{free / GIB:.1f} GiB"
    if free >= DISK_WANTED:
        return Finding("ok", "free disk", found)
    state: State = "note" if free >= DISK_NEEDED else "missing"
    return Finding(state, "free disk", f"{found}, the demo wants {DISK_WANTED // GIB}", "dvc gc --workspace")


def _git(root: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("missing", "git", "not installed: experiments and the report need it", "apt-get install git")
        return
    ask: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "errors": "replace", "check": False}
    head = subprocess.run(["git", "log", "-1", "--format=%h %s"], **ask)
    if head.returncode:
        yield Finding("missing", "git", "no commit here", "git init && git add -A && git commit -m 'Start'")
        return
    count = len(subprocess.run(["git", "status", "--porcelain"], **ask).stdout.splitlines())
    yield Finding("ok", "git", f"{head.stdout.strip()}; " + (f"{count} changed file(s)" if count else "clean"))


def _dvc(root: Path) -> Iterator[Finding]:
    if not (root / ".dvc").is_dir():
        yield Finding("missing", "dvc", "DVC is not set up in this folder", "dvc init")
        return
    if not (root / "data" / "manifest.jsonl").is_file():
        yield Finding("missing", "data", "data/manifest.jsonl does not exist", "mirasol world --out data, or dvc pull")
    if _version("dvc") is None:
        return  # named among the packages
    from mirasol.pipeline.dvc.dvc import status

    try:
        stale = status(root)
    except MirasolError as error:
        yield Finding("note", "dvc", " ".join(str(error).split())[:200], "dvc status")
        return
    found = (f"to run: {_some(stale)}", "dvc repro") if stale else ("everything is up to date",)
    yield Finding("ok", "dvc", *found)
