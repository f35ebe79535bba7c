"""Whether this machine has the memory for the phases of a params file."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from mirasol.core.errors import MirasolError
from mirasol.pipeline.launch.config import Cluster
from mirasol.pipeline.params.checks import PHASES, WEIGHTS
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.stages import sized
from mirasol.training.config import Processes

if TYPE_CHECKING:
    from mirasol.training.memory.budget import Job

SMALL = ("demo", "own", "tiny")  # presets that fit any machine


def fits(params: Params, cluster: Cluster) -> str:
    """A warning if the phase that takes most memory cannot fit a machine like this one, else an empty text.

    The memory is that of the GPU; without one, or with ``training.accelerator: cpu``, a process's share of the RAM.
    Not looked at: models of the presets ``SMALL``, so that torch need not be imported for them, and phases that
    ``cluster`` sends to other machines.
    """
    if params.model.preset in SMALL and params.model.vit == "preset":
        return ""
    from mirasol.training.memory.budget import Setting, check_fits, predict

    training = params.training
    setting = Setting(training.sharding, training.recompute, training.micro_batch)
    places = {name: cluster.at(name).filled(getattr(params, name).batch_size, training) for name in PHASES}
    try:
        jobs: dict[Job, tuple[Job, float]] = {}  # a prediction takes seconds: phases alike have one
        for name, place in places.items():
            if place.launcher == "local":
                memory, cuda = _memory(params, place.processes.devices)
                job = _job(params, name, cuda, place.processes)
                jobs[_needs(job)] = job, memory
        found = [(job, predict(job, setting), memory) for job, memory in jobs.values()]
        if found:
            check_fits(*max(found, key=lambda one: one[1].total / one[2]))
    except MirasolError as error:
        return f"warning: {error}; `mirasol model memory` looks for a setting that fits"
    return ""


def _memory(params: Params, devices: int) -> tuple[float, bool]:
    """Bytes for one device of this machine, and whether it is a GPU."""
    import torch

    if params.training.accelerator != "cpu" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory), True
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices, False


def _job(params: Params, name: str, cuda: bool, processes: Processes) -> Job:
    from mirasol.training.memory.budget import Job

    phase, training = getattr(params, name), params.training
    return Job(
        name=name,
        model=sized(params, phase, params.tokenizer.vocabulary),
        chunks=phase.view.of(params.clip).chunks,
        batch=phase.batch_size,
        gpus=processes.count,
        nodes=processes.nodes,
        texts=phase.texts_per_clip,
        phase=phase,
        mixed=training.precision != "32-true",
        cuda=cuda,
    )


def _needs(job: Job) -> Job:
    """``job`` without what takes no memory: its name, and all of its phase but the parts that learn, and by what."""
    from mirasol.training.config import PhaseConfig

    phase = job.phase
    used: dict[str, Any] = {name: float(getattr(phase, name) > 0) for name in WEIGHTS}
    same = PhaseConfig(trained=phase.trained, optimizer=phase.optimizer, ema=phase.ema and 0.5, **used)
    return dataclasses.replace(job, name="", phase=same)
