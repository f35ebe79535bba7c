"""Random faults of a training on two nodes of a real Slurm, each drawn from a seed, and what became of the run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from support.phase import phase_project
from support.slurm import NODES, Slurm
from support.training import small_world

STAGE = [sys.executable, "-m", "mirasol", "stage", "finetune"]
STEPS, EVERY = 24, 3  # of the run, and of its checkpoints
TIMEOUT = 15.0  # training.timeout, seconds
GIVE_UP = 240.0  # seconds of one run
BACK = 25.0  # seconds until a node comes back, if nobody has missed it before
CLOSE = 1e-5  # largest difference of a figure of the curves
KINDS = (
    "preempted", "requeued", "scancel", "slurmd killed", "rank killed", "rank stopped", "node unreachable", "disk full",
)  # fmt: skip
CAUSES = {  # what the driver's output says where it ends with an error
    "preempted": "was ended by the cluster",
    "requeued": "was ended by the cluster",
    "scancel": "was cancelled by scancel",
    "slurmd killed": "was ended by the cluster|process . on .* does not answer",
    "rank killed": "was ended by signal 9|process . on .* does not answer",
    "rank stopped": "process . on .* does not answer",
    "node unreachable": "was ended by the cluster|process . on .* (does not answer|was waited for)|lost each other",
    "disk full": "No space left|disk is full",
}


@dataclasses.dataclass
class Round:
    """One fault and its end."""

    fault: str
    step: int  # the checkpoint after which it came
    victim: int  # rank or node, from 0
    outcome: str = ""  # `went on`, or `error` that names the cause, after which the driver was started again
    error: str = ""
    seconds: float = 0.0  # from the fault to the end of the driver that saw it
    silent: float = 0.0  # the longest time in it, but for starts, without a line, a checkpoint or another state
    difference: float = float("nan")  # the largest of the curves

    @property
    def survived(self) -> bool:
        """Whether the run ended as it should, without a hang."""
        return self.outcome in ("went on", "error") and self.difference <= CLOSE and self.silent < TIMEOUT + 10


def drawn(seed: int, count: int, kinds: tuple[str, ...]) -> list[Round]:
    """``count`` faults; each of ``kinds`` comes before any comes again."""
    draw = random.Random(seed)
    faults: list[str] = []
    while len(faults) < count:
        faults += draw.sample(kinds, len(kinds))
    return [Round(fault, draw.randrange(EVERY, STEPS - 6, EVERY), draw.randrange(2)) for fault in faults[:count]]


def possible() -> tuple[str, ...]:
    """The faults that this user can cause: a full disk is a small one of its own, which takes the right to mount."""
    return KINDS if os.geteuid() == 0 else tuple(kind for kind in KINDS if kind != "disk full")


class Trial:
    """A project before its finetuning, the curves of the undisturbed run, and rounds of faults on copies of it."""

    def __init__(self, slurm: Slurm, environment: dict[str, str], folder: Path) -> None:
        self.slurm, self.environment, self.folder = slurm, environment, folder
        self.source = phase_project(small_world(folder / "world"), folder / "source", steps=2)
        path = self.source / "params.yaml"
        subprocess.run([*STAGE[:-1], "pretrain"], cwd=self.source, check=True, timeout=300, capture_output=True)
        shutil.copytree(self.source / "build/pretrain", self.source / "build/audio_pretrain")
        text = path.read_text()
        for key, value in {"steps": STEPS, "checkpoint_every": EVERY, "timeout": TIMEOUT}.items():
            text = re.sub(rf"^  {key}: .*", f"  {key}: {value}", text, flags=re.MULTILINE)
        path.write_text(text)
        alone = self._copy("alone", "devices: 2\n")
        subprocess.run(STAGE, cwd=alone, check=True, timeout=300, capture_output=True)
        self.curves = curves(alone)

    def run(self, number: int, one: Round) -> Round:
        """Do ``one`` to a run, and fill in what became of it."""
        root = self._copy(f"round-{number}", "launcher: slurm\nnodes: 2\n")
        with self._small_disk(root) if one.fault == "disk full" else contextlib.nullcontext():
            driver = self._start(root)
            try:
                self._until(lambda: last_step(root) >= one.step or driver.poll() is not None)
                if driver.poll() is not None:
                    one.outcome = f"ended before its fault: {output(root)[-500:]}"
                    return one
                begin = time.monotonic()
                mend = getattr(self, f"_{one.fault.replace(' ', '_')}")(root, one.victim)
                self._watch(root, driver, one, mend)
                one.seconds = round(time.monotonic() - begin, 1)
                said = output(root)
                if driver.returncode:
                    named = re.search(CAUSES[one.fault], said)
                    one.outcome = "error" if named else f"status {driver.returncode} without a cause"
                    lines = [line for line in said.splitlines() if re.search(CAUSES[one.fault], line)]
                    one.error = lines[-1][:300] if lines else said[-300:]
                    driver = self._start(root)
                    self._until(lambda: driver.poll() is not None, lambda: self._hurry())
                    if driver.returncode:
                        one.outcome += f"; started again: status {driver.returncode}: {output(root)[-300:]}"
                else:
                    one.outcome = "went on"
                if not driver.returncode:
                    one.difference = difference(curves(root), self.curves)
            except AssertionError as error:
                one.outcome = str(error)
            finally:
                driver.terminate()
                driver.wait(30)
                self.slurm.wait(lambda: self.slurm.jobs() == "", "empty queue", 60)
        shutil.rmtree(root / "build", ignore_errors=True)
        return one

    def _copy(self, name: str, cluster: str) -> Path:
        root = self.folder / name
        shutil.copytree(self.source, root)
        shutil.rmtree(root / "runs", ignore_errors=True)
        (root / "cluster.yaml").write_text(cluster)
        return root

    def _start(self, root: Path) -> subprocess.Popen[str]:
        with (root / "driver.log").open("a") as log:
            return subprocess.Popen(
                STAGE, cwd=root, env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True
            )

    def _until(self, holds: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        end = time.monotonic() + GIVE_UP
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"not within {GIVE_UP:g} s; {self.slurm.jobs()}")
            meanwhile()
            time.sleep(0.1)

    def _watch(self, root: Path, driver: subprocess.Popen[str], one: Round, mend: Callable[[], None] | None) -> None:
        """Wait for the driver; the node comes back when it was missed."""
        begin = last = time.monotonic()
        before: tuple[object, ...] = ()
        running, steps, starts = output(root).count("running on"), last_step(root), False
        while driver.poll() is None:
            now = time.monotonic()
            said = output(root)
            sign = (len(said), last_step(root), self.slurm.jobs())
            if sign != before:
                before, last = sign, now
            if running != (running := said.count("running on")):
                starts, steps = True, last_step(root)
            starts = starts and last_step(root) == steps
            one.silent = one.silent if starts else max(one.silent, round(now - last, 1))
            if mend and (now - begin > BACK or re.search("started again|submits it again", said)):
                mend()
                mend = None
            self._hurry()
            if now - begin > GIVE_UP:
                one.outcome = "hangs"
                driver.terminate()
            time.sleep(0.2)
        if mend:
            mend()

    def _hurry(self) -> None:
        """Slurm lets a job that it has taken back wait for two minutes: until its processes are gone is enough."""
        waits = re.findall(r"^(\d+) BeginTime", self.slurm.call("squeue", "-h", "-o", "%A %r"), re.MULTILINE)
        if waits and not any(self.slurm.processes(node) for node in NODES):
            time.sleep(10)  # and until Slurm knows it: else it drains the node for a job that runs twice
            self.slurm.call("scontrol", "update", f"JobId={waits[0]}", "StartTime=now")

    def _job(self) -> str:
        return self.slurm.jobs("--state=RUNNING").split()[0]

    def _preempted(self, root: Path, victim: int) -> None:
        self.slurm.call("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")

    def _requeued(self, root: Path, victim: int) -> None:
        self.slurm.call("scontrol", "requeue", self._job())

    def _scancel(self, root: Path, victim: int) -> None:
        self.slurm.call("scancel", self._job())

    def _slurmd_killed(self, root: Path, victim: int) -> Callable[[], None]:
        node = f"n{victim + 1}"
        self.slurm.end(node, signal.SIGKILL)
        return lambda: self.slurm.start_node(node)

    def _rank_killed(self, root: Path, victim: int) -> None:
        rank_of(root, victim).kill()

    def _rank_stopped(self, root: Path, victim: int) -> None:
        rank_of(root, victim).suspend()

    def _node_unreachable(self, root: Path, victim: int) -> Callable[[], None]:
        return self.slurm.freeze(f"n{victim + 1}")

    def _disk_full(self, root: Path, victim: int) -> Callable[[], None]:
        filler = root / "runs" / "filler"
        left = shutil.disk_usage(root / "runs").free
        filler.write_bytes(bytes(max(0, left - 2**19)))  # room for lines, not for a checkpoint
        return filler.unlink

    @contextlib.contextmanager
    def _small_disk(self, root: Path) -> Iterator[None]:
        """`runs` is a disk of its own, with room for a few checkpoints."""
        runs = root / "runs"
        runs.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", runs], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", runs], check=True)


def output(root: Path) -> str:
    """What the drivers of ``root`` have said."""
    return (root / "driver.log").read_text(errors="replace")


def last_step(root: Path) -> int:
    """The last checkpoint of the run; 0 without one."""
    found = (re.fullmatch(r"step-(\d+)\.ckpt", path.name) for path in root.glob("runs/finetune/checkpoints/*"))
    return max((int(name[1]) for name in found if name), default=0)


def rank_of(root: Path, rank: int) -> psutil.Process:
    """The process of one rank."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            ours = (process.info["cmdline"] or [])[-3:] == STAGE[-3:] and process.cwd() == str(root)
            if ours and process.environ().get("RANK") == str(rank):
                return process
    raise AssertionError(f"no process of rank {rank}")


def curves(root: Path) -> list[dict[str, float]]:
    """The figures of each line of the curves."""
    lines = (root / "build/finetune/curves.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if isinstance(value, (int, float))} for line in lines
    ]


def difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """The largest difference of two curves; infinite if they have other figures or lines."""
    if [sorted(line) for line in ours] != [sorted(line) for line in theirs]:
        return float("inf")
    pairs = zip(ours, theirs, strict=True)
    return max(abs(one[key] - other[key]) for one, other in pairs for key in one)
