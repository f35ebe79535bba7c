"""`mirasol model memory`: whether a training step fits a GPU, and the setting that makes it fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol.cli.console import note, table
from mirasol.cli.preset import PRESET_HELP

if TYPE_CHECKING:
    from mirasol.training.memory.budget import Job, Prediction, Setting

PARTS = {
    "weights": "weights, fp32",
    "optimizer": "moments of the optimiser, fp32",
    "average": "moving average of the weights, fp32",
    "gradients": "gradients, fp32",
    "casts": "weights in bf16 (autocast)",
    "gathered": "weights and gradients gathered (FSDP2)",
    "clips": "clips",
    "activations": "activations and temporaries",
}


@dataclass(frozen=True)
class MemoryOptions:
    """Options of `mirasol model memory`."""

    batch: Annotated[int, typer.Option(min=1, help="clips of a step on all GPUs")]
    preset: Annotated[str | None, typer.Argument(help=PRESET_HELP)] = None
    file: Annotated[Path, typer.Option(help="the params file")] = Path("params.yaml")
    gpus: Annotated[int, typer.Option(min=1, help="GPUs on all nodes")] = 1
    nodes: Annotated[int, typer.Option(min=1, help="machines")] = 1
    memory: Annotated[float, typer.Option(min=1, help="GiB of a GPU; an eighth is to stay free")] = 80.0
    frames: Annotated[int | None, typer.Option(min=1, help="frames of a clip; the number of chunks stays")] = None
    size: Annotated[int | None, typer.Option(min=1, help="side of a frame in pixels")] = None
    combiner: Annotated[str | None, typer.Option(help="another combiner")] = None
    texts: Annotated[int, typer.Option(min=1, help="texts of a clip, each of the longest length")] = 1
    optimizer: Annotated[str, typer.Option(help="adamw, adam or muon")] = "adamw"
    sharding: Annotated[str | None, typer.Option(help="none, full or hybrid; default: the cheapest that fits")] = None
    recompute: Annotated[str | None, typer.Option(help="none, selective or full; default: likewise")] = None
    micro_batch: Annotated[int | None, typer.Option(min=0, help="clips at once on a GPU; default: likewise")] = None
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="share of the GPU's rate that the model reaches")] = 0.4
    tflops: Annotated[float, typer.Option(min=0.1, help="dense bf16 TFLOP/s of a GPU")] = 989.0
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="write the figures there")] = None


def memory(given: MemoryOptions) -> None:
    """Count the memory of a training step on each GPU, and choose the cheapest setting that fits.

    Runs forward and backward pass of the real model on tensors without data, as on CUDA in bf16-mixed, with all
    weights trained and every text of full length. With --sharding, --recompute or --micro-batch it counts that
    setting alone. Needs no GPU; `base` takes seconds a setting.

    Example:  mirasol model memory base --gpus 8 --batch 32
    """
    from mirasol.cli.preset import chosen_config
    from mirasol.core.errors import MirasolError
    from mirasol.training.config import PhaseConfig
    from mirasol.training.memory.budget import GIB, Job, check_fits, predict, search

    setting = _setting(given)
    try:
        name, chunks, config = chosen_config(given.preset, given.file, given.frames, given.size, given.combiner)
        phase = PhaseConfig(optimizer=given.optimizer)
        job = Job(name, config, chunks, given.batch, given.gpus, given.nodes, given.texts, phase=phase)
        tried = [predict(job, setting)] if setting else list(search(job, given.memory * GIB))
    except ValueError as error:
        raise MirasolError(f"no such model: {error}") from error
    chosen = min(tried, key=lambda one: one.total)  # a setting that fits ends the search, those before it are larger
    figures = _figures(given, job, chosen)
    _print(given, job, tried, figures)
    if given.json:
        _write(given.json, figures)
    check_fits(job, chosen, given.memory * GIB)


def _setting(given: MemoryOptions) -> Setting | None:
    """The setting that the options name; ``None``: look for one."""
    from mirasol.core.errors import MirasolError
    from mirasol.training.config import OPTIMIZERS, RECOMPUTE, SHARDINGS
    from mirasol.training.memory.budget import Setting

    for name, value, known in (
        ("sharding", given.sharding, SHARDINGS),
        ("recompute", given.recompute, RECOMPUTE),
        ("optimizer", given.optimizer, OPTIMIZERS),
    ):
        if value is not None and value not in known:
            raise MirasolError(f"--{name} {value}: expected one of {', '.join(known)}")
    if given.sharding is None and given.recompute is None and given.micro_batch is None:
        return None
    return Setting(given.sharding or "none", given.recompute or "none", given.micro_batch or 0)


def _figures(given: MemoryOptions, job: Job, chosen: Prediction) -> dict[str, Any]:
    import dataclasses

    from mirasol.model.sizes.accounting import training_flops
    from mirasol.training.memory.budget import work

    config = job.model
    flops = training_flops(config, job.chunks, [config.max_text - 1] * job.texts)
    rate = job.gpus * given.tflops * 1e12 * given.mfu / (flops * work(chosen.setting))
    return {
        "preset": job.name,
        "frames": job.chunks * config.frames_per_chunk,
        "size": config.size,
        "batch": job.batch,
        "gpus": job.gpus,
        "setting": dataclasses.asdict(chosen.setting),
        "gib": {part: _gib(count) for part, count in chosen.parts.items()},
        "gib_per_gpu": _gib(chosen.total),
        "gib_kept": _gib(chosen.kept),
        "tflop_per_clip": float(f"{flops / 1e12:.4g}"),
        "mfu": given.mfu,
        "clips_per_second": float(f"{rate:.3g}"),
    }


def _gib(count: float) -> float:
    """GiB of bytes, four digits."""
    return float(f"{count / 2**30:.4g}")


def _print(given: MemoryOptions, job: Job, tried: list[Prediction], figures: dict[str, Any]) -> None:
    config, found = job.model, figures["setting"]
    print(
        f"{job.name}: {job.chunks} chunks of {config.frames_per_chunk} frames of {config.size} x {config.size}, "
        f"batch {job.batch} on {job.gpus} GPU(s): {job.share} clips each\n"
    )
    rows = [("sharding", "recompute", "micro_batch", "GiB a GPU")]
    rows += [
        (one.setting.sharding, one.setting.recompute, str(one.setting.micro_batch), f"{_gib(one.total):.3g}")
        for one in tried
    ]
    table(rows, right=(2, 3))
    print()
    shown = [(PARTS[part], f"{gib:.3g}") for part, gib in figures["gib"].items() if gib]
    table([("part", "GiB"), *shown, ("all", f"{figures['gib_per_gpu']:.3g}")], right=(1,))
    print("\ntraining:\n  precision: bf16-mixed")
    for key, value in found.items():
        print(f"  {key}: {value}")
    again = ", the forward pass twice" if found["recompute"] == "full" else ""
    print(
        f"\n{figures['clips_per_second']:g} clips a second at an assumed MFU of {given.mfu:g} of "
        f"{given.tflops:g} TFLOP/s a GPU{again}; {figures['tflop_per_clip']:.3g} TFLOP a clip"
    )


def _write(path: Path, figures: dict[str, Any]) -> None:
    """The figures in the form of the benchmarks (benchmarks/common.py)."""
    from mirasol.core.files import write_json
    from mirasol.evaluation.report.project import machine
    from mirasol.pipeline.dvc.command import CommandError, git

    try:
        commit: str | None = git(Path.cwd(), "rev-parse", "HEAD")
    except (OSError, CommandError):
        commit = None
    value = figures["gib_per_gpu"]
    ratios = {"gib_per_gpu": {"value": value, "ci95": [value, value], "rounds": 1}}
    result = {"name": "memory", "commit": commit, "machine": machine(), "ratios": ratios, "figures": figures}
    write_json(path, result)
    note(f"-> {path}")
