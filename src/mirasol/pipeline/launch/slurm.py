"""A stage as a job of a Slurm cluster: a phase as one agent of torchrun on each node, another one as a process.

The driver submits the job, passes its log on, says where it stands in the queue, submits it again when the cluster
ended it, and cancels it when the driver itself ends, however it does.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.storage import RUNS
from mirasol.pipeline.launch.agent import MARK
from mirasol.pipeline.launch.commands import State, call, pending, show, start_guard
from mirasol.pipeline.launch.config import NAMED, Cluster
from mirasol.pipeline.launch.limits import CANCELS, SRUN, WARNING
from mirasol.pipeline.launch.lines import ERROR, Lines
from mirasol.pipeline.launch.local import AGENT
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.run_stage import first_cause

LOG_EVERY = 0.5  # seconds between looks at the log
STATE_EVERY = 2.0  # seconds between looks at the job at first; they grow to
STATE_EVERY_LATER = 15.0
LOST = ("PREEMPTED", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL")  # ends that are no fault of the stage
STOPPED = 143  # processes that saved and left on SIGTERM


def run(stage: str, cluster: Cluster, lines: Lines) -> int:
    """Run ``stage`` as a job, and as another one when the cluster ended it, up to ``slurm.resubmits`` times.

    Returns:
        The exit status of the process that failed first, 128 + N for signal N; 0 if none failed.

    Raises:
        MirasolError: Slurm refuses the job, does not answer, or somebody cancelled it; or the cluster ended it once
            too often.
    """
    name = f"mirasol-{stage}-{secrets.token_hex(4)}"
    folder = Path("runs", stage)
    script = write_script(folder, stage, name, cluster)
    limit, tries = cluster.slurm.resubmits, 0
    with _cancelled_at_the_end(name):
        while True:
            number = submit(script, name, cluster)
            log = folder / f"job-{number}.log"
            lines.begin(f"[{stage}] job {number}: {_size(cluster)}; log {log}")
            end = Job(stage, number, log, lines).follow(limit - tries)
            tries += end.restarts
            if end.name == "COMPLETED":
                return 0
            why = f"{end.name.lower().replace('_', ' ')}, exit status {end.status}"
            if end.held:
                why = end.reason.replace("_", " ")
                call("scancel", number)
            if end.name == "CANCELLED":
                raise MirasolError(f"job {number} was cancelled by scancel: run again to resume")
            if end.ended and not lost(end, first_cause(folder)):
                lines.say(f"[{stage}] job {number} ended: {why}")
                return end.status or 1
            if tries >= limit:
                raise MirasolError(
                    f"job {number} was ended by the cluster ({why}), and slurm.resubmits of cluster.yaml allows "
                    f"{limit} further jobs: run again to resume from the last checkpoint"
                )
            tries += 1
            lines.begin(
                f"[{stage}] job {number} was ended by the cluster ({why}): submits it again, {tries} of {limit}"
            )


def _size(cluster: Cluster) -> str:
    each = cluster.processes
    return f"{each.nodes} nodes x {each.devices} processes" if each.count > 1 else "1 process"


def lost(end: State, cause: dict[str, Any] | None) -> bool:
    """Whether the cluster ended a job, and not the phase's own error ``cause``.

    Processes that save and leave within the grace time make a preempted job FAILED.
    """
    own = cause is not None and not cause["transient"]
    return end.held or end.name in LOST or (end.status == STOPPED and not own)


def write_script(folder: Path, stage: str, name: str, cluster: Cluster) -> Path:
    """Write the script of the job, and the mark by which the agents know the folder; returns the script's path."""
    mark = folder / "launch"
    with atomic_write(mark, "w") as file:
        file.write(name)
    with atomic_write(folder / "job.sh", "w") as file:
        file.write(render(stage, cluster, f"{mark}={name}"))
    return folder / "job.sh"


def render(stage: str, cluster: Cluster, mark: str) -> str:
    """The script of the job, which runs on the first node.

    Of a phase it starts one agent on each node, which meet on the first; another stage is one process.
    """
    options = cluster.slurm
    python = [*shlex.split(options.container), *(shlex.split(options.python) or [sys.executable])]
    command = ["-m", "mirasol", "stage", stage]
    if stage in PHASES:
        # The other tasks end by themselves when one fails.
        start = [
            f"exec srun --kill-on-bad-exit=0 --wait={SRUN} {shlex.join([*python, *AGENT])} \\",
            f"  --nnodes {cluster.nodes} --nproc-per-node {cluster.processes.devices} --rdzv-backend c10d \\",
            '  --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))" \\',
            f"  {shlex.join(command)}",
        ]
    else:
        start = [f"exec srun --ntasks=1 {shlex.join([*python, '-P', '-u', *command])}"]
    return "\n".join(
        [
            "#!/bin/bash -l" if options.modules else "#!/bin/bash",  # -l: `module` is a function of login shells
            *(f"module load {shlex.quote(module)} || exit 1" for module in options.modules.split()),
            f"export {MARK}={shlex.quote(mark)} {RUNS}={shlex.quote(cluster.storage)} PYTHONSAFEPATH=1",
            # srun does not take it from sbatch
            'if [ -n "$SLURM_CPUS_PER_TASK" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi',
            *start,
            "",
        ]
    )


def submit(script: Path, name: str, cluster: Cluster) -> str:
    """Submit ``script`` as job ``name``; returns its number.

    Raises:
        MirasolError: sbatch refuses it; the text is sbatch's own.
    """
    options = cluster.slurm
    named = [f"--{key}={getattr(options, key)}" for key in NAMED if getattr(options, key)]
    log = script.parent / "job-%j.log"
    ours = [f"--job-name={name}", f"--nodes={cluster.nodes}", "--ntasks-per-node=1", f"--output={log}"]
    fixed = ["--parsable", "--open-mode=append", "--requeue", f"--signal=TERM@{WARNING}"]  # the last --signal counts
    done = call("sbatch", *fixed, *ours, *named, *shlex.split(options.extra), str(script))
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise MirasolError(
            f"sbatch refuses the job: {said}. Its options come from cluster.yaml: `mirasol cluster check`"
        )
    return done.stdout.strip().splitlines()[-1].split(";")[0]


@dataclass
class Job:
    """One submitted job."""

    stage: str
    number: str
    log: Path
    lines: Lines
    read: int = 0  # bytes of the log
    rest: bytes = b""  # of a line that has not ended
    told: str = ""  # the last line about the queue

    def follow(self, restarts: int) -> State:
        """Pass the log on until the job has ended; a job that Slurm itself starts again more than ``restarts`` times
        is over.

        Raises:
            MirasolError: Slurm does not answer.
        """
        every, due = STATE_EVERY, 0.0
        while True:
            if self._pass_on():  # something ends: look at once, and soon again
                every, due = STATE_EVERY, 0.0
            if time.monotonic() >= due:
                state = show(self.number)
                if state.ended:
                    time.sleep(LOG_EVERY)  # the last lines may still be on their way
                    self._pass_on(last=True)
                    return state
                if state.restarts > restarts:
                    return state
                self._tell(state)
                every = min(every * 1.2, STATE_EVERY_LATER)
                due = time.monotonic() + every
            time.sleep(LOG_EVERY)

    def _pass_on(self, *, last: bool = False) -> bool:
        """Print new lines; whether one of them tells of an error."""
        ends = False
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:
            file.seek(self.read)
            found = file.read()
            self.read += len(found)
            *lines, self.rest = (self.rest + found).split(b"\n")
            for line in [*lines, *([self.rest] if last and self.rest else [])]:
                text = line.decode("utf-8", errors="replace").rstrip()
                ends |= text.startswith((ERROR, "srun: "))
                self.lines.say(text)
        return ends

    def _tell(self, state: State) -> None:
        if state.name == "PENDING":
            ahead, waiting = pending(self.number, state.partition)
            text = f"waits, {ahead} of {waiting} in partition {state.partition} ({state.reason})"
            if state.restarts:
                text += f", started again {state.restarts} times by Slurm"
        elif state.nodes:
            text = f"{state.name.lower()} on {state.nodes}"
        else:
            text = state.name.lower()
        if text != self.told:
            self.told = text
            tell = self.lines.begin if state.name == "PENDING" else self.lines.say
            tell(f"[{self.stage}] job {self.number} {text}")


@contextlib.contextmanager
def _cancelled_at_the_end(name: str) -> Iterator[None]:
    """Cancel all jobs called ``name`` if the block ends early, or this process does."""
    guard = start_guard(name)
    done = b""
    try:
        yield
        done = b"done\n"
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            guard.communicate(done, timeout=CANCELS)
