"""Memory of a training step on one GPU by its parts, and the cheapest setting that fits (docs/decisions/0064)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from mirasol.core.errors import MirasolError
from mirasol.model.config import ModelConfig
from mirasol.training.config import RECOMPUTE, PhaseConfig
from mirasol.training.memory.step import Load, StepMemory, step_memory

GIB = 2**30
FREE = 1 / 8  # of the memory, left for CUDA's context, NCCL's buffers and the allocator's gaps, which are not counted
MOMENTS = {"adamw": 8, "adam": 8, "muon": 4}  # bytes for each parameter that is a matrix; 8 for all others
FULL_RECOMPUTE = 4 / 3  # work of a step, where a forward pass is a third of it


@dataclass(frozen=True)
class Job:
    """A training step, whatever setting computes it."""

    name: str  # of the preset, for messages
    model: ModelConfig
    chunks: int
    batch: int  # clips of a step on all GPUs
    gpus: int = 1
    nodes: int = 1
    texts: int = 1  # of a clip
    length: int = 0  # tokens of a text; 0: as many as the model takes
    answer: int = 0  # those of them that it predicts; 0: all
    phase: PhaseConfig = field(
        default_factory=PhaseConfig
    )  # of it: optimiser, moving average, parts that learn, losses
    mixed: bool = True  # bf16-mixed, else fp32
    cuda: bool = True  # else the kernels of a CPU

    def __post_init__(self) -> None:
        if self.gpus % self.nodes:
            raise MirasolError(f"{self.gpus} GPUs on {self.nodes} nodes: expected the same number on each")
        if self.batch % self.gpus:
            raise MirasolError(
                f"a batch of {self.batch} clips does not divide among {self.gpus} GPUs: choose a multiple of "
                f"{self.gpus}"
            )

    @property
    def share(self) -> int:
        """Clips of a step on one GPU."""
        return self.batch // self.gpus


@dataclass(frozen=True)
class Setting:
    """The keys of `training` that trade time for memory, by their names."""

    sharding: str = "none"
    recompute: str = "none"
    micro_batch: int = 0  # 0: the whole share of a GPU

    def check(self, job: Job) -> None:
        """Raise :class:`MirasolError` where ``job`` cannot be computed so."""
        if 0 < self.micro_batch < job.share and job.share % self.micro_batch:
            raise MirasolError(
                f"micro_batch is {self.micro_batch}, but a GPU's share of {job.share} clips is no multiple of it: "
                f"choose one of {', '.join(map(str, _divisors(job.share)))}"
            )
        if self.sharding != "none" and job.gpus == 1:
            raise MirasolError(f"sharding is {self.sharding} on one GPU: set it to none, or take more GPUs")
        if self.sharding == "hybrid" and job.nodes == 1:
            raise MirasolError("sharding is hybrid on one node: set it to full, or take more nodes")


@dataclass(frozen=True)
class Prediction:
    """Bytes on each GPU at the moment of a step that takes most."""

    setting: Setting
    parts: dict[str, float]
    kept: int  # activations kept for the backward pass of a micro-batch

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


def predict(job: Job, setting: Setting) -> Prediction:
    """The memory of ``job`` under ``setting``.

    Raises:
        MirasolError: they do not go together.
        ValueError: the sizes make no model.
    """
    setting.check(job)
    clips = min(setting.micro_batch or job.share, job.share)
    load = Load(
        clips=clips,
        chunks=job.chunks,
        texts=job.texts,
        length=job.length,
        answer=job.answer,
        phase=job.phase,
        recompute=setting.recompute,
        mixed=job.mixed,
        accumulated=clips < job.share or (setting.sharding == "none" and job.gpus > 1),  # DDP's buckets always exist
        cuda=job.cuda,
    )
    step = _measured(job.model, load)
    shards = {"none": 1, "full": job.gpus, "hybrid": job.gpus // job.nodes}[setting.sharding]
    shares = {} if setting.sharding == "none" else {"casts": 0.0, "gradients": 1 / shards}
    peak = step.peak(shares)
    moments = MOMENTS[job.phase.optimizer] * step.matrices + 8 * (step.learning - step.matrices)
    parts = {
        "weights": 4 * step.parameters / shards + step.buffers,
        "optimizer": moments / shards,
        "average": 4 * step.parameters / shards if job.phase.ema else 0.0,
        "gradients": peak["gradients"] + peak["root_gradients"],
        "casts": peak["casts"] + peak["root_casts"],
        "gathered": 0.0 if setting.sharding == "none" else _gathered(step, job.mixed),
        "clips": step.batch * job.share / clips,
        "activations": peak["activations"],
    }
    return Prediction(setting, parts, step.kept)


def _gathered(step: StepMemory, mixed: bool) -> float:
    """FSDP2's whole weights and whole gradients.

    The root stays gathered in fp32 for the step. Of blocks, two are gathered at once, the one that computes and the
    next; the gradient of one is whole, and once more in fp32 on its way to the other GPUs.
    """
    width = 2 if mixed else 4
    return 4 * step.root + (3 * width + 4) * max(step.units)


@functools.lru_cache(maxsize=32)
def _measured(model: ModelConfig, load: Load) -> StepMemory:
    return step_memory(model, load)


def settings(job: Job) -> Iterator[Setting]:
    """From the cheapest to the dearest in time: copies, shards, recomputation, then smaller micro-batches."""
    sharded = [*(["hybrid"] if job.nodes > 1 else []), "full"] if job.gpus > 1 else ["none"]
    pairs = [("none", "none"), *((sharding, mode) for mode in RECOMPUTE for sharding in sharded)]
    for clips in _divisors(job.share):
        for sharding, mode in dict.fromkeys(pairs):
            yield Setting(sharding, mode, 0 if clips == job.share else clips)


def search(job: Job, memory: float) -> Iterator[Prediction]:
    """Predictions for :func:`settings`, up to the first that leaves an eighth of ``memory`` bytes free."""
    for setting in settings(job):
        found = predict(job, setting)
        yield found
        if found.total <= usable(memory):
            return


def cheapest(job: Job, memory: float) -> Prediction:
    """The first of :func:`search` that fits; raises :class:`MirasolError` if none does."""
    found = min(search(job, memory), key=lambda one: one.total)  # those before it are larger
    check_fits(job, found, memory)
    return found


def usable(memory: float) -> float:
    """Bytes of a GPU of ``memory`` bytes that a step may take."""
    return memory * (1 - FREE)


def check_fits(job: Job, found: Prediction, memory: float) -> None:
    """Raise :class:`MirasolError` unless ``found`` leaves an eighth of ``memory`` bytes free."""
    if found.total <= usable(memory):
        return
    clip = f"{job.chunks} chunks of {job.model.frames_per_chunk} frames of {job.model.size} px"
    raise MirasolError(
        f"{job.name}, {clip}, batch {job.batch} on {job.gpus} device(s): {found.total / GIB:.1f} GiB on each with "
        f"{describe(found.setting)}, expected at most {usable(memory) / GIB:.1f} (an eighth of {memory / GIB:.0f} "
        "stays free): take more devices, fewer frames or a smaller model"
    )


def describe(setting: Setting) -> str:
    """The keys of `training` as one line."""
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(setting).items())


def work(setting: Setting) -> float:
    """Operations of a step by those of the model: a full recomputation repeats the forward pass."""
    return FULL_RECOMPUTE if setting.recompute == "full" else 1.0


def _divisors(number: int) -> list[int]:
    return [d for d in range(number, 0, -1) if number % d == 0]
