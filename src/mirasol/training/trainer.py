"""Runs one training phase, from shards to weights, and opens all its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file
from mirasol.core.progress import Progress
from mirasol.data.loading.failures import report
from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.best import BestWeights
from mirasol.training.callbacks import Recorder
from mirasol.training.checkpoint import CHECKPOINT, AtomicCheckpointIO, fingerprint, resumable_step
from mirasol.training.config import PhaseRun, TrainingConfig
from mirasol.training.curves import CURVES, read_lines, write_plots
from mirasol.training.data_module import PhaseDataModule
from mirasol.training.loggers import make_logger
from mirasol.training.module import PhaseModule
from mirasol.training.parallel import compile_blocks
from mirasol.training.phases import freeze
from mirasol.training.recompute import apply_recompute
from mirasol.training.start import initial_model
from mirasol.training.strategy import build_strategy, check_sharding, is_leader
from mirasol.training.validation import Validation, forgotten
from mirasol.training.weights import WEIGHTS, save_weights

# Settings of `training` that a resumed run may change: where, by how many processes and kernels it runs, when it gives
# up; and `init`, whose weights are among the hashes of the inputs.
FREE = (
    "workers", "max_damaged", "devices", "nodes", "accelerator", "attention", "init", "micro_batch", "sharding",
    "recompute", "compile", "logger",
)  # fmt: skip


@contextlib.contextmanager
def reproducible(training: TrainingConfig, *, cpu: bool) -> Iterator[None]:
    """Threads and determinism of torch by the settings; afterwards those from before.

    Sums depend on the number of threads, so that is part of the result, and on the processor's instruction set, which
    no setting can fix. On the CPU deterministic kernels cost nothing; on a GPU some are slow or missing, and the
    kernels limit reproducibility.
    """
    memory: Any = torch.utils.deterministic
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = memory.fill_uninitialized_memory
    torch.set_num_threads(training.threads)
    torch.use_deterministic_algorithms(cpu)
    memory.fill_uninitialized_memory = False  # a debugging aid that writes all memory twice
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = fill


def describe(run: PhaseRun, model: ModelConfig) -> dict[str, Any]:
    """The fingerprint of a phase: everything that decides its weights."""
    training = dataclasses.asdict(run.training)
    settings = {
        "name": run.name,
        "phase": dataclasses.asdict(run.config),
        "training": {key: value for key, value in training.items() if key not in FREE},
        "clip": dataclasses.asdict(run.clip),
        "model": model.to_dict(),
    }
    paths = run.paths
    inputs = {"shards": sha256_file(paths.shards / "shards.json"), "tokenizer": sha256_file(paths.tokenizer)}
    if paths.init is not None:
        inputs["init"] = sha256_file(paths.init / WEIGHTS)
    return fingerprint(settings, inputs)


def run_phase(run: PhaseRun, model: ModelConfig) -> dict[str, Any]:
    """Train one phase, or resume one that was killed, and write its weights.

    Returns:
        The final figures: plain values, equal for equal inputs, with the damaged clips if any, the samples of each
        data set under ``mix``, and under ``forgotten`` the relative growth of the loss of each task of the phases
        before. Every process returns them.

    Raises:
        MirasolError: inputs do not fit, the phase has nothing to learn from, the loss is not a finite number, too
            many clips are damaged, or the disk cannot be written.
    """
    paths = run.paths
    check_devices(run)
    data = PhaseDataModule(run)
    run = data.run  # with its steps
    network = start(run, model)
    if not run.required and not data.has_examples:
        return _hand_on(run, network)
    freeze(network, run.config, data.modalities)
    trainer, best = fit(run, network, data, describe(run, model))
    lines = read_lines(paths.runs / CURVES)
    if trainer.is_global_zero:
        with atomic_write(paths.out / CURVES) as file:
            file.write((paths.runs / CURVES).read_bytes())
        write_plots(paths.out, lines)
    if best is None:
        save_weights(paths.out, network, leader=trainer.is_global_zero)
    elif trainer.is_global_zero:
        best.hand_on(paths.out)
    trainer.strategy.barrier("weights are written")
    extra = {"damaged": report(paths.runs, run.samples), "sets": data.sets()}
    found = summary(lines, best.step if best else 0)
    extra["forgotten"] = forgotten(_before(run), found["val"], run.before)
    return found | {name: facts for name, facts in extra.items() if facts}


def _before(run: PhaseRun) -> dict[str, Any]:
    """The last evaluation of the phase whose weights this one starts from; empty for weights from elsewhere."""
    lines = read_lines(run.paths.init / CURVES) if run.paths.init is not None else []
    found: dict[str, Any] = lines[-1].get("val", {}) if lines else {}
    return found


def start(run: PhaseRun, model: ModelConfig) -> Mirasol:
    """The model that this process begins with: of a sharded one, only the first process holds the weights."""
    if run.training.sharding == "none" or is_leader():
        return initial_model(model, run.paths.init, run.training.seed)
    with torch.device("meta"):
        return Mirasol(model)


def check_devices(run: PhaseRun) -> None:
    """Raise ``MirasolError`` unless each device gets an equal share of a step's clips, in whole micro-batches."""
    batch_size, world = run.config.batch_size, run.training.devices * run.training.nodes
    if batch_size % world:
        raise MirasolError(
            f"{run.name}.batch_size is {batch_size}, the clips of one step on all devices; it does not divide "
            f"among {world} (training.devices x training.nodes): choose a multiple of {world}"
        )
    share, micro = batch_size // world, run.training.micro_batch
    if micro and share % micro:
        raise MirasolError(
            f"training.micro_batch is {micro}; it does not divide the {share} clips that a device takes of "
            f"{run.name}.batch_size {batch_size}: choose a divisor of {share}, or 0 for all of them at once"
        )
    check_sharding(run)


def fit(
    run: PhaseRun, network: Mirasol, data: PhaseDataModule, made_by: dict[str, Any]
) -> tuple[pl.Trainer, BestWeights | None]:
    """Train ``network`` in place up to step ``run.config.steps``, from the run's checkpoint if ``made_by`` made it.

    Returns:
        The trainer, and under `keep: best` the weights to hand on in place of the last ones.
    """
    name, config, training, runs = run.name, run.config, run.training, run.paths.runs
    _quieten()
    use_backend(network, training.attention)
    apply_recompute(network, training.recompute)
    if training.compile:
        compile_blocks(network)
    leader = is_leader()
    checkpoint = runs / CHECKPOINT
    step, reasons = resumable_step(checkpoint, made_by)
    start = step or 0
    data.start, data.num_queries = start * config.batch_size, network.config.num_queries
    amp = training.precision == "16-mixed"  # skips steps with infinite gradients by itself, and refuses fused AdamW
    module = PhaseModule(network, config, seed=training.seed, fused=not amp)
    with contextlib.ExitStack() as stack:
        hidden = None if leader else stack.enter_context(Path(os.devnull).open("w"))
        validation = Validation(data.val_batches, *data.families())
        progress = Progress(name, run.samples, "clips", done=data.start, stream=hidden)
        watched = ("loss",) if amp else ("loss", "grad_norm")
        recorder = Recorder(run, validation, progress, made_by, start, watched)
        trainer = build_trainer(run, start, recorder)
        stack.enter_context(reproducible(training, cpu=trainer.strategy.root_device.type == "cpu"))
        stack.enter_context(stopping_between_steps())
        if leader:
            _print_origin(run, checkpoint, step, reasons)
        stack.enter_context(recorder.progress)
        try:
            network.log_mel = data.front_end(trainer.strategy.root_device)
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint if start else None, weights_only=True)
            module.finish()
        except SIGTERMException:
            # Lightning leaves with status 0, which a pipeline would take for success.
            print(f"[{name}] stopped by SIGTERM: run again to resume from the last checkpoint", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from None
    return trainer, recorder.best


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[None]:
    """Leave SIGTERM to Lightning, which ends the step first, so that a checkpoint can be saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(lines: list[dict[str, Any]], kept: int = 0) -> dict[str, Any]:
    """The figures of the last line: means over the last steps, and the last evaluation; or those of step ``kept``."""
    steps = lines[-1]["step"]
    line = dict(next((line for line in lines if line["step"] == kept), lines[-1]))
    step = line.pop("step")
    return {"steps": steps, "val": line.pop("val"), "train": line} | ({"kept": step} if kept else {})


def build_trainer(run: PhaseRun, start: int, recorder: Recorder) -> pl.Trainer:
    """A trainer that leaves curves, checkpoints and the progress bar to :class:`Recorder`.

    Raises:
        MirasolError: this machine lacks the requested devices or the package of the logger.
    """
    training, runs = run.training, run.paths.runs
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Its own requeueing would resume from a checkpoint that has no fingerprint and knows no sample count.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    logger = make_logger(run, start)
    try:
        return pl.Trainer(
            accelerator=training.accelerator, devices=training.devices, num_nodes=training.nodes,
            precision=training.precision, strategy=build_strategy(run),  # type: ignore[arg-type]
            max_steps=run.config.steps, max_epochs=-1, logger=logger, callbacks=[recorder], plugins=plugins,
            default_root_dir=runs, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise MirasolError(
            f"training.accelerator {training.accelerator}, training.devices {training.devices}: not on this machine "
            f"({error}); `mirasol doctor` says what there is"
        ) from error


def _hand_on(run: PhaseRun, network: Mirasol) -> dict[str, Any]:
    """Without examples the weights of the phase are those that it started from."""
    reason = f"no training example of task {' or '.join(run.tasks)}"
    print(f"[{run.name}] {reason}: the weights stay unchanged", file=sys.stderr)
    before = _before(run)
    with atomic_write(run.paths.out / CURVES, "w") as file:  # later phases compare with it
        file.write(json.dumps({"step": 0, "val": before}, sort_keys=True) + "\n" if before else "")
    save_weights(run.paths.out, network, leader=is_leader())
    return {"steps": 0, "skipped": reason}


def _print_origin(run: PhaseRun, checkpoint: Path, step: int | None, reasons: list[str]) -> None:
    if step is not None:
        print(f"[{run.name}] resumes at step {step} of {run.config.steps}, {checkpoint}", file=sys.stderr)
    elif reasons:
        shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        print(f"[{run.name}] starts from step 0: {checkpoint} belongs to another run: {shown}", file=sys.stderr)


def _quieten() -> None:
    """Suppress Lightning's remarks about the machine and about deliberate choices."""
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    # that a block which is computed again changes nothing in place: none does
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*", ".*ModelCheckpoint.*", ".*no `val_dataloader`.*", ".*LeafSpec.*",
        ".*FSDP2-wrapped module .* returned a view.*",  # blocks change nothing in place
    ):  # fmt: skip
        warnings.filterwarnings("ignore", message)
