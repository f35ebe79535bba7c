"""A real Slurm of two nodes on this machine: no root, no systemd, no cgroup, no database, nothing installed.

`make test-cluster` unpacks the Debian packages into `.slurm`; a Slurm that is installed serves too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

UNPACKED = Path(__file__).parents[2] / ".slurm"
TOOLS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo")
LIMIT = 120.0
NODES = ("n1", "n2")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=5
KillWait=15
MpiDefault=none
FirstJobId={first}
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why no Slurm can be started here; empty if one can."""
    if _program("slurmctld") is None:
        return f"no Slurm: {UNPACKED} is not there (`make test-cluster` unpacks it) and none is installed"
    return ""


def _program(name: str) -> Path | None:
    for folder in (UNPACKED / "usr/sbin", UNPACKED / "usr/bin", Path("/usr/sbin"), Path("/usr/bin")):
        for found in (folder / name, folder / f"{name}-wlm"):
            if found.is_file():
                return found
    return None


def _libraries() -> str:
    found = sorted(str(path.parent) for path in UNPACKED.glob("usr/lib/**/libslurmfull*"))
    return os.pathsep.join([*found, *(str(Path(path).parent) for path in found), os.environ.get("LD_LIBRARY_PATH", "")])


class Slurm:
    """The daemons, in the foreground, and the environment in which its commands work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        conf = folder / "slurm.conf"
        # Phases meet on the port of their job's number: another cluster of a test on this machine has other ones.
        ports, host = _ports(), socket.gethostname().split(".")[0]
        text = CONF.format(folder=folder, host=host, ports=ports, first=ports[0] % 9000 + 1, user=_user())
        plugins = [path.parent for path in UNPACKED.glob("usr/lib/**/libslurmfull*")]
        conf.write_text(text + "".join(f"PluginDir={path}\n" for path in plugins))
        self.libraries = _libraries()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for tool in TOOLS:
            script = bin_folder / tool
            script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={self.libraries} exec {_program(tool)} "$@"\n')
            script.chmod(0o755)
        self.environment = {
            "PATH": os.pathsep.join([str(bin_folder), os.environ["PATH"]]),
            "SLURM_CONF": str(conf),
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until the nodes are idle."""
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: self.call("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D").strip() == "2", "idle nodes")

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        step = _program("slurmstepd")
        arguments = ("-D", "-N", node, "-f", self.environment["SLURM_CONF"], "-d", str(step))
        self._daemon("slurmd", *arguments, name=node)

    def _daemon(self, program: str, *arguments: str, name: str = "") -> None:
        output = (self.folder / f"{name or program}.out").open("ab")
        environment = os.environ | self.environment | {"LD_LIBRARY_PATH": self.libraries}
        self.daemons[name or program] = subprocess.Popen(
            [str(_program(program)), *arguments], env=environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip

    def stop(self) -> None:
        """End the jobs, then the daemons, each by its process."""
        self.call("scancel", "--state=RUNNING")
        self.call("scancel", "--state=PENDING")
        for name in (*NODES, "slurmctld"):
            if name in self.daemons:
                self.end(name, signal.SIGTERM)
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def end(self, name: str, number: int) -> None:
        """End one daemon by a signal."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def lose(self, node: str) -> None:
        """Kill a node's daemon and all processes of its jobs, as a power cut does."""
        self.end(node, signal.SIGKILL)
        for process in self.processes(node):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def freeze(self, node: str) -> Callable[[], None]:
        """Stop a node's daemon and all processes of its jobs, as one that cannot be reached; returns what thaws it."""
        stopped = [psutil.Process(self.daemons[node].pid), *self.processes(node)]
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.suspend()

        def thaw() -> None:
            for process in stopped:
                with contextlib.suppress(psutil.Error):
                    process.resume()

        return thaw

    def processes(self, node: str) -> list[psutil.Process]:
        """The processes of a node's jobs, and Slurm's own above them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                surroundings = process.environ()
                ours = surroundings.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if ours and surroundings.get("SLURMD_NODENAME") == node:
                    parent = process.parent()
                    found += [process] + ([parent] if parent and parent.name().startswith("slurmstepd") else [])
        return found

    def call(self, *words: str) -> str:
        """The output of one of Slurm's commands."""
        environment = os.environ | self.environment
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout

    def jobs(self, *options: str) -> str:
        """What `squeue` lists, one job a line."""
        return self.call("squeue", "-h", "-o", "%A %T %j", *options).strip()

    def wait(self, holds: Callable[[], bool], subject: str, seconds: float = LIMIT) -> float:
        """Wait until ``holds``; returns the seconds that it took."""
        start = time.monotonic()
        while not holds():
            if time.monotonic() - start > seconds:
                raise AssertionError(f"no {subject} within {seconds:g} s; {self.jobs()}")
            time.sleep(0.1)
        return time.monotonic() - start


def _ports() -> tuple[int, int, int]:
    """A free port, and two neighbours."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
        free = 0
        for number in (port + 1, port + 2):
            with socket.socket() as other:
                try:
                    other.bind(("127.0.0.1", number))
                except OSError:
                    break
                free += 1
        if free == 2:
            return port, port + 1, port + 2


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
