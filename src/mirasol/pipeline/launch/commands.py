"""The commands of Slurm that the launcher calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

from mirasol.core.errors import MirasolError
from mirasol.pipeline.launch.limits import SAVES

TOOLS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
PATIENCE = 300.0  # seconds without an answer of Slurm
RUNNING = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "SIGNALING",
           "STAGE_OUT", "RESIZING", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")  # fmt: skip
# Without a line on its input the guard cancels the jobs named $0: those that wait at once, and the processes of those
# that run by SIGTERM, on which they save and leave; after so many seconds by force.
GUARD = f"""trap "" TERM INT HUP
read line && exit
scancel --state=PENDING --name "$0"
scancel --signal=TERM --name "$0"
for i in $(seq {SAVES}); do
  sleep 1
  queue=$(squeue -h --name "$0") && [ -z "$queue" ] && exit
done
for job in $(squeue -h -o %A --name "$0"); do scancel --signal=KILL $job.0; done
scancel --name "$0"
"""


@dataclass(frozen=True)
class State:
    """A job, as `scontrol show job` describes it."""

    name: str  # PENDING, RUNNING, COMPLETED, FAILED, ...
    status: int = 0  # exit status, 128 + N for signal N
    reason: str = ""  # why it waits, or ended
    nodes: str = ""
    partition: str = ""
    restarts: int = 0  # by Slurm itself

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self.held or self.name not in RUNNING

    @property
    def held(self) -> bool:
        """Whether Slurm could not start the job, took it back, and holds it until an operator lets it go."""
        return self.name == "PENDING" and self.reason.startswith("launch_failed")


def call(*words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm, as from outside any job.

    Raises:
        MirasolError: it is not on PATH.
    """
    if shutil.which(words[0]) is None:
        raise MirasolError(
            f"cluster.yaml says launcher: slurm, but {words[0]} is not on PATH: run where Slurm's commands are, "
            "such as on the login node, or set launcher to local"
        )
    inside = ("SLURM_CONF", "SLURM_TIME_FORMAT")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k in inside}
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=timeout, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"{words[0]} did not answer within {timeout:g} s")


def start_guard(name: str) -> subprocess.Popen[bytes]:
    """A process that cancels the jobs called ``name`` when its input ends without a line: when we end, too."""
    command = ["/bin/sh", "-c", GUARD, name]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )


def show(number: str) -> State:
    """The state of job ``number``.

    Raises:
        MirasolError: Slurm has not answered for minutes, or does not know the job any more.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        done = call("scontrol", "show", "job", "--oneliner", number)
        if done.returncode == 0 and "JobState=" in done.stdout:
            return parse(done.stdout)
        gone = "Invalid job id" in done.stderr
        if gone and (found := _accounted(number)):
            return found
        if gone or time.monotonic() > deadline:
            raise MirasolError(
                f"Slurm says nothing about job {number}: {done.stderr.strip() or 'no answer'}. Its log is in the "
                "stage's folder under runs/; run again to resume from the last checkpoint"
            )
        time.sleep(5)


def parse(text: str) -> State:
    """The state in a line of `scontrol show job --oneliner`."""
    found = dict(re.findall(r"(\w+)=(\S*)", text))
    code, _, number = found.get("ExitCode", "0:0").partition(":")
    status = 128 + int(number) if int(number or 0) else int(code)
    nodes = "" if found.get("NodeList", "") in ("", "(null)") else found["NodeList"]
    reason = found.get("Reason", "")
    return State(found["JobState"], status, reason, nodes, found.get("Partition", ""), int(found.get("Restarts", 0)))


def _accounted(number: str) -> State | None:
    """The state of a job that only the accounting still knows."""
    if shutil.which("sacct") is None:
        return None
    done = call("sacct", "-n", "-X", "-P", "-j", number, "-o", "State,ExitCode")
    line = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    if not line:
        return None
    name, _, code = line[0].partition("|")
    return parse(f"JobState={name.split()[0]} ExitCode={code}")


def pending(number: str, partition: str) -> tuple[int, int]:
    """The place of job ``number`` among the waiting jobs of its partition, from 1, and their count."""
    done = call("squeue", "-h", "-t", "PENDING", "-p", partition, "--sort=-p,i", "-o", "%A")
    waiting = done.stdout.split()
    return (waiting.index(number) + 1 if number in waiting else len(waiting) + 1), max(1, len(waiting))
