"""What `mirasol cluster check` finds out: what cluster.yaml means, and whether the cluster agrees."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.pipeline.launch.commands import TOOLS, call
from mirasol.pipeline.launch.config import CLUSTER, NAMED, Cluster
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.load import load_params
from mirasol.training.config import check_processes

BUSY = "mmediate execution impossible|nodes are busy|Connection timed out|Force Terminated|did not answer"  # of srun


@dataclass(frozen=True)
class Finding:
    """One checked subject."""

    ok: bool
    subject: str
    text: str


def examine(cluster: Cluster, wait: float) -> Iterator[Finding]:
    """Every finding about ``cluster``; ``wait`` seconds for nodes that say whether they see this folder."""
    yield Finding(True, "processes", describe(cluster))
    for stage, place in cluster.stages.items():
        yield Finding(True, "stage", _describe_stage(stage, place))
    if Path("params.yaml").is_file():
        yield from _phases(cluster)
    places = [place for place in (cluster, *cluster.stages.values()) if place.launcher == "slurm"]
    different = {(place.slurm, place.nodes): place for place in places}
    if different:
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        where = ": run where Slurm's commands are, such as on the login node"
        yield Finding(
            not missing, "commands", f"{', '.join(missing)} not on PATH{where}" if missing else ", ".join(TOOLS)
        )
        for place in () if missing else different.values():
            yield from _slurm(place, wait)


def describe(cluster: Cluster) -> str:
    """What cluster.yaml means for a training phase, in one sentence."""
    source = str(CLUSTER) if CLUSTER.exists() else f"no {CLUSTER}"
    if not cluster.devices and cluster.launcher == "local":
        return f"{source}: a phase trains in one process of this machine, or in two that make the same weights faster"
    if not cluster.launches:
        return f"{source}: a phase trains in one process of this machine"
    if cluster.launcher == "local":
        return f"{source}: a phase trains in {cluster.devices} processes of this machine"
    each = cluster.processes
    text = f"{source}: a phase trains in {each.count} processes, {each.devices} on each of {each.nodes} nodes of Slurm"
    return f"{text}{_named(cluster)}, submitted again up to {cluster.slurm.resubmits} times"


def _describe_stage(stage: str, place: Cluster) -> str:
    each = place.processes
    if place.launcher == "local":
        return f"{stage} runs on this machine" + (f" in {each.devices} processes" if place.devices > 1 else "")
    size = f"in {each.count} processes on {each.nodes} nodes" if each.count > 1 else "in one process on a node"
    return f"{stage} runs {size} of Slurm{_named(place)}"


def _named(place: Cluster) -> str:
    named = ", ".join(f"{key} {getattr(place.slurm, key)}" for key in NAMED if getattr(place.slurm, key))
    return f" ({named})" if named else ""


def _phases(cluster: Cluster) -> Iterator[Finding]:
    try:
        params = load_params()
        phases = {name: getattr(params, name) for name in PHASES}
        filled = {name: cluster.at(name).filled(phase.batch_size, params.training) for name, phase in phases.items()}
        for name, phase in phases.items():
            check_processes(name, phase, params.training, filled[name].processes)
    except MirasolError as error:
        yield Finding(False, "params.yaml", str(error))
        return
    shares = [f"{name} {phase.batch_size // filled[name].processes.count}" for name, phase in phases.items()]
    yield Finding(True, "params.yaml", f"clips of a step for each process: {', '.join(shares)}")


def _slurm(cluster: Cluster, wait: float) -> Iterator[Finding]:
    done = call("scontrol", "show", "partition", "--oneliner")
    if done.returncode:
        yield Finding(False, "controller", done.stderr.strip())
        return
    partitions = {name: line for line in done.stdout.splitlines() for name in re.findall(r"^PartitionName=(\S+)", line)}
    default = next((name for name, line in partitions.items() if " Default=YES" in line), "")
    name = cluster.slurm.partition or default
    names = name.split(",")  # sbatch takes the first that is free
    if unknown := [each for each in names if each not in partitions]:
        known = ", ".join(partitions) or "none"
        given = f"no partition {', '.join(unknown)}" if name else "no default partition: set slurm.partition"
        yield Finding(False, "partition", f"{given}; the cluster has {known}")
        return
    count = max(int((re.findall(r"TotalNodes=(\d+)", partitions[each]) or ["0"])[0]) for each in names)
    enough = count >= cluster.nodes
    text = f"{name}, {count} nodes" + ("" if enough else f": nodes is {cluster.nodes}")
    yield Finding(enough, "partition", text)
    if enough:
        yield _shared(cluster, wait)


def _shared(cluster: Cluster, wait: float) -> Finding:
    """Whether the nodes read a file that this machine has just written."""
    mark, text = Path("runs", "launch.check"), secrets.token_hex(8)
    with atomic_write(mark, "w") as file:
        file.write(text)
    named = [f"--{key}={getattr(cluster.slurm, key)}" for key in NAMED if getattr(cluster.slurm, key)]
    size = [f"--nodes={cluster.nodes}", "--ntasks-per-node=1", f"--immediate={max(1, round(wait))}", "--chdir=/"]
    named += shlex.split(cluster.slurm.extra)
    shell = 'echo "$SLURMD_NODENAME $(cat "$0")"'
    try:
        done = call("srun", *size, *named, "sh", "-c", shell, str(mark.resolve()), timeout=wait + 60)
    finally:
        mark.unlink(missing_ok=True)
    seen = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    blind = sorted(node for node, found in seen.items() if found != text)
    if len(seen) < cluster.nodes:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        if re.search(BUSY, why):
            return Finding(True, "folder", f"not looked at from the nodes: {cluster.nodes} were not free in {wait:g} s")
        return Finding(False, "folder", f"not looked at from the nodes, srun refuses: {why}")
    if blind and cluster.storage:
        return Finding(True, "folder", f"not seen on {', '.join(blind)}: files of a run come from {cluster.storage}")
    if blind:
        return Finding(False, "folder", f"{Path.cwd()} of {socket.gethostname()} is not seen on {', '.join(blind)}")
    return Finding(True, "folder", f"{Path.cwd()} is seen on {', '.join(sorted(seen))}")
