"""cluster.yaml: by how many processes a phase trains, and on which machines. Operational: no result depends on it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.fields import param
from mirasol.core.machine import cores, has_accelerator
from mirasol.pipeline.params.errors import ParamsError, Problem, nearest, show
from mirasol.pipeline.params.load import check_value, line_of, parse
from mirasol.pipeline.params.schema import Key, keys
from mirasol.training.config import Processes, TrainingConfig

CLUSTER = Path("cluster.yaml")
SECTION = "slurm"
SEE = "examples/cluster.yaml lists every key"
TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED")  # the forms of `sbatch --time`
OURS = ("array", "chdir", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "output", "requeue", "wrap")
SHORT = {"-a": "array", "-D": "chdir", "-e": "error", "-J": "job-name", "-N": "nodes", "-n": "ntasks", "-o": "output"}
NAMED = ("partition", "account", "time", "constraint")  # keys that are options of sbatch by the same name


@dataclass(frozen=True)
class SlurmSpec:
    """The section `slurm`: options of sbatch, and the surroundings of the processes."""

    partition: str = param("", "partition; empty: the cluster's default")
    account: str = param("", "account that pays; empty: yours")
    time: str = param("", "time limit, as in `4:00:00` or `2-12`; empty: the partition's")
    constraint: str = param("", "features that the nodes must have")
    modules: str = param("", "names for `module load`, with blanks between them")
    container: str = param("", "command that Python runs within, such as `apptainer exec --nv mirasol.sif`")
    python: str = param("", "Python with mirasol on the nodes; empty: the one that submits")
    extra: str = param("", "further options of sbatch, such as `--gpus-per-node=8 --cpus-per-task=64`")
    resubmits: int = param(3, "further jobs after one that was preempted, lost a node or ran out of time", ge=0, le=100)


@dataclass(frozen=True)
class Places:
    """The keys of cluster.yaml outside `slurm`."""

    launcher: str = param("local", "`local`: processes of this machine; `slurm`: a job", choices=("local", "slurm"))
    devices: int = param(
        0,
        "processes on each node: one for each GPU; 0: one, or two on CPUs where a step has two parts",
        le=1024,
        ge=0,
    )
    nodes: int = param(1, "machines", ge=1, le=65536)


@dataclass(frozen=True)
class Cluster(Places):
    """All of cluster.yaml. Every key is optional; without the file a phase trains on this machine."""

    slurm: SlurmSpec = SlurmSpec()

    @property
    def processes(self) -> Processes:
        """The processes of a phase."""
        return Processes(self.devices or 1, self.nodes)

    def filled(self, batch_size: int, training: TrainingConfig) -> Cluster:
        """With its devices for a phase of ``batch_size`` clips a step, where the file leaves them open.

        Two processes on a CPU, of the cores that one would leave idle, if a step has two micro-batches: that is faster
        and changes no bit (docs/decisions/0086). Never more unasked: a sum of three depends on its order.
        """
        if self.devices:
            return self
        halves = batch_size == 2 * training.micro_batch
        on_cpu = training.accelerator == "cpu" or (training.accelerator == "auto" and not has_accelerator())
        pair = halves and on_cpu and self.launcher == "local" and cores() >= 2 * training.threads
        return dataclasses.replace(self, devices=2 if pair else 1)

    @property
    def launches(self) -> bool:
        """Whether a phase trains in other processes than the one that is asked for it."""
        return self.launcher == "slurm" or self.devices > 1


def load_cluster(folder: str | Path = ".") -> Cluster:
    """The ``cluster.yaml`` of a project's folder, or the defaults without one.

    Raises:
        ParamsError: the file is not valid; the message names every problem with its line.
        MirasolError: it cannot be read.
    """
    path = Path(folder) / CLUSTER
    if not path.exists():
        return Cluster()
    known, options = keys(Places), keys(SlurmSpec)
    document = parse(path, f"keys of {', '.join([*known, SECTION])}", SEE, empty=True)
    reader = _Reader()
    section = document.get(SECTION) or {}
    if not isinstance(section, dict):
        wrong = f"got {show(section)}, expected a section with keys of {', '.join(options)}"
        reader.problems.append(Problem(line_of(document, SECTION, 1), SECTION, wrong))
        section = {}
    values = reader.read({name: value for name, value in document.items() if name != SECTION}, document, known)
    found = reader.read(section, section, options, f"{SECTION}.")
    if values.get("launcher", "local") == "local" and values.get("nodes", 1) > 1:
        wrong = "`launcher: local` starts processes of this machine alone: set nodes to 1, or launcher to slurm"
        reader.problems.append(Problem(line_of(document, "nodes", 1), "nodes", wrong))
    for name, wrong in _wrong_options(found):
        reader.problems.append(Problem(line_of(section, name, 1), f"{SECTION}.{name}", wrong))
    if reader.problems:
        raise ParamsError(path, reader.problems, SEE)
    return Cluster(**values, slurm=SlurmSpec(**found))


class _Reader:
    """Reads mappings and collects their problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, content: dict[str, Any], lines: Any, known: dict[str, Key], prefix: str = "") -> dict[str, Any]:
        """The valid values of ``content``, whose keys stand on ``lines``."""
        values: dict[str, Any] = {}
        for name, value in content.items():
            if name in known:
                values[name], wrong = check_value(value, known[name])
            else:
                guess = nearest(str(name), known)
                wrong = "unknown key: " + (f"did you mean `{guess}`?" if guess else f"expected {', '.join(known)}")
            if wrong:
                values.pop(name, None)
                self.problems.append(Problem(line_of(lines, name, 1), f"{prefix}{name}", wrong))
        return values


def _wrong_options(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of the section `slurm` whose texts sbatch or the shell would misread, with the fault of each."""
    time = found.get("time", "")
    if time and not TIME.fullmatch(time):
        yield (
            "time",
            f"got '{time}', expected a limit such as 30 (minutes), 4:00:00 or 2-12 (days-hours)",
        )
    for name in ("container", "python", "extra"):
        try:
            words = shlex.split(found.get(name, ""))
        except ValueError as error:
            yield name, f"cannot be split into words as a shell does: {error}"
            continue
        ours = [word for word in words if (SHORT.get(word[:2]) or word.removeprefix("--").split("=")[0]) in OURS]
        if name == "extra" and ours:
            yield name, f"{', '.join(ours)}: the launcher sets these options itself, from `nodes` and the stage"
