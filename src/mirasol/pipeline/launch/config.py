"""cluster.yaml: where each stage runs, and by how many processes a phase trains. No result depends on it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.fields import param
from mirasol.core.machine import cores, has_accelerator
from mirasol.data.storage import check_folder
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.errors import ParamsError, Problem, nearest, show
from mirasol.pipeline.params.load import check_value, line_of, parse
from mirasol.pipeline.params.schema import Key, keys
from mirasol.pipeline.stages import STAGES
from mirasol.training.config import Processes, TrainingConfig

CLUSTER = Path("cluster.yaml")
SECTION, OF_STAGES = "slurm", "stages"
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
    """The keys of cluster.yaml outside its sections."""

    launcher: str = param("local", "`local`: processes of this machine; `slurm`: a job", choices=("local", "slurm"))
    devices: int = param(
        0,
        "processes on each node: one for each GPU; 0: one, or two on CPUs where a step has two parts",
        le=1024,
        ge=0,
    )
    nodes: int = param(1, "machines", ge=1, le=65536)
    storage: str = param("", "URL of a folder for the files of runs; empty: all nodes see the project's folder")


@dataclass(frozen=True)
class Cluster(Places):
    """All of cluster.yaml. Every key is optional; without the file a phase trains on this machine."""

    slurm: SlurmSpec = SlurmSpec()
    stages: dict[str, Cluster] = dataclasses.field(default_factory=dict)  # those with a place of their own

    def at(self, stage: str) -> Cluster:
        """The place of ``stage``: its own one, that of all phases, or this process."""
        return self.stages.get(stage, self if stage in PHASES else Cluster())

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
    document = parse(path, f"keys of {', '.join([*keys(Places), SECTION, OF_STAGES])}", SEE, empty=True)
    reader = _Reader()
    own = {name: value for name, value in document.items() if name != OF_STAGES}
    values, options = reader.place(own, document)
    cluster = Cluster(**values, slurm=SlurmSpec(**options))
    sections = reader.section(document, OF_STAGES, STAGES)
    for stage, section in sections.items():
        if stage not in STAGES:
            reader.wrong(sections, stage, f"{OF_STAGES}.{stage}", _unknown("stage", stage, STAGES))
            continue
        content = reader.section(sections, stage, [*keys(Places), SECTION], f"{OF_STAGES}.")
        before = values if stage in PHASES else {"launcher": cluster.launcher}
        found, changed = reader.place(content, content or section, before, f"{OF_STAGES}.{stage}.")
        for name in ("devices", "nodes"):
            if stage not in PHASES and found.get(name, 1) > 1:
                wrong = f"{stage} is one process: only {', '.join(PHASES)} run in several"
                reader.wrong(content, name, f"{OF_STAGES}.{stage}.{name}", wrong)
        cluster.stages[stage] = Cluster(**found, slurm=SlurmSpec(**(options | changed)))
    if reader.problems:
        raise ParamsError(path, reader.problems, SEE)
    return cluster


def _unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    guess = nearest(str(name), known)
    return f"unknown {kind}: " + (f"did you mean `{guess}`?" if guess else f"expected {', '.join(known)}")


class _Reader:
    """Reads mappings and collects their problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, lines: Any, name: Any, path: str, fault: str) -> None:
        """Note the ``fault`` of the key ``name``, whose line ``lines`` knows."""
        self.problems.append(Problem(line_of(lines, name, 1), path, fault))

    def section(self, lines: Any, name: str, known: Iterable[str], prefix: str = "") -> dict[str, Any]:
        """The mapping under ``name``; an empty one if it is none."""
        section = lines.get(name) or {}
        if isinstance(section, dict):
            return section
        self.wrong(lines, name, f"{prefix}{name}", f"got {show(section)}, expected a section of {', '.join(known)}")
        return {}

    def place(
        self, content: dict[str, Any], lines: Any, before: dict[str, Any] | None = None, prefix: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keys of one place, over those of ``before``, and the options of its section `slurm`."""
        options = keys(SlurmSpec)
        section = self.section(content, SECTION, options, prefix)
        own = {name: value for name, value in content.items() if name != SECTION}
        values = (before or {}) | self.read(own, lines, keys(Places), prefix)
        found = self.read(section, section, options, f"{prefix}{SECTION}.")
        if values.get("launcher", "local") == "local" and values.get("nodes", 1) > 1:
            fault = "`launcher: local` starts processes of this machine alone: set nodes to 1, or launcher to slurm"
            self.wrong(lines, "nodes", f"{prefix}nodes", fault)
        if (url := own.get("storage")) and isinstance(url, str) and (refused := check_folder(url)):
            self.wrong(lines, "storage", f"{prefix}storage", refused)
        for name, fault in _wrong_options(found):
            self.wrong(section, name, f"{prefix}{SECTION}.{name}", fault)
        return values, found

    def read(self, content: dict[str, Any], lines: Any, known: dict[str, Key], prefix: str = "") -> dict[str, Any]:
        """The valid values of ``content``, whose keys stand on ``lines``."""
        values: dict[str, Any] = {}
        for name, value in content.items():
            if name in known:
                values[name], fault = check_value(value, known[name])
            else:
                fault = _unknown("key", name, known)
            if fault:
                values.pop(name, None)
                self.wrong(lines, name, f"{prefix}{name}", fault)
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
