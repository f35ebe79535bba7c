"""Runs one training phase, from shards to weights, and opens all its files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file
from mirasol.core.progress import Progress
from mirasol.data.loading.failures import met, report
from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.callbacks import Recorder
from mirasol.training.checkpoint import AtomicCheckpointIO, fingerprint
from mirasol.training.config import PhaseRun, TrainingConfig, check_processes, is_rank
from mirasol.training.curves import CURVES, read_lines, write_plots
from mirasol.training.data_module import PhaseDataModule
from mirasol.training.loggers import make_logger
from mirasol.training.module import PhaseModule
from mirasol.training.parallel import compile_blocks
from mirasol.training.phases import freeze
from mirasol.training.ranks import Ranks, join
from mirasol.training.recompute import apply_recompute
from mirasol.training.resume import Checkpoints, Origin, begin
from mirasol.training.start import initial_model
from mirasol.training.stopping import STATUS, take_signals
from mirasol.training.strategy import build_strategy, is_leader, limit_waits
from mirasol.training.validation import ClipValidation, Validation, forgotten
from mirasol.training.weights import WEIGHTS, save_weights

# Settings of `training` that a resumed run may change: where and by which kernels it runs, when it gives up;
# and `init`, whose weights are among the hashes of the inputs.
FREE = (
    "workers", "max_damaged", "accelerator", "attention", "init", "micro_batch", "sharding", "recompute", "compile",
    "logger", "timeout", "keep_checkpoints", "keep_every",
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
            many clips are damaged, the disk cannot be written, or the checkpoint belongs to another unfinished run.
        PeerError: another process failed or vanished.
        SystemExit: SIGTERM came; the last step is saved.
    """
    with join(run.training.timeout) as ranks:
        return _run_phase(run, model, ranks)


def _run_phase(run: PhaseRun, model: ModelConfig, ranks: Ranks) -> dict[str, Any]:
    paths = run.paths
    check_processes(run.name, run.config, run.training, run.processes)
    data = PhaseDataModule(run)
    run = data.run  # with its steps
    agree_on_clips(ranks, data)
    network = start(run, model)
    if not run.required and not data.has_examples:
        return _hand_on(run, network)
    freeze(network, run.config, data.modalities)
    trainer, recorder = fit(run, network, data, describe(run, model), ranks)
    best = recorder.best
    lines: list[dict[str, Any]] = trainer.strategy.broadcast(read_lines(paths.runs / CURVES))  # of the first process
    if trainer.is_global_zero:
        with atomic_write(paths.out / CURVES) as file:
            file.write((paths.runs / CURVES).read_bytes())
        write_plots(paths.out, lines)
    if best is None:
        save_weights(paths.out, network, leader=trainer.is_global_zero)
    elif trainer.is_global_zero:
        best.hand_on(paths.out)
    trainer.strategy.barrier("weights are written")
    damage = ranks.gather("damage", met(paths.runs, run.samples, ranks.rank, ranks.world))
    extra: dict[str, Any] = {"damaged": report(itertools.chain(*damage)), "sets": data.sets()}
    extra["resumed_anyway"] = recorder.origin.anyway
    found = summary(lines, best.step if best else 0)
    extra["forgotten"] = forgotten(_before(run), found["val"], run.before)
    return found | {name: facts for name, facts in extra.items() if facts}


def agree_on_clips(ranks: Ranks, data: PhaseDataModule) -> None:
    """Refuse a process that finds other clips than the first one, on its disk or with other clips damaged.

    Raises:
        MirasolError: in all processes, with the names of these.
    """
    ours = data.digests()
    theirs = ranks.agree("clips", lambda: ours)
    wrong = [
        f"{name} ({ours[name]}, the first process has {theirs[name]})" for name in ours if ours[name] != theirs[name]
    ]
    advice = "`mirasol data check` there says which clips are damaged"
    ranks.check("same clips", f"the clips read here differ in {', '.join(wrong)}: {advice}" if wrong else "")


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


def fit(
    run: PhaseRun, network: Mirasol, data: PhaseDataModule, made_by: dict[str, Any], ranks: Ranks
) -> tuple[pl.Trainer, Recorder]:
    """Train ``network`` in place up to step ``run.config.steps``, from the run's checkpoint if ``made_by`` made it.

    Returns:
        The trainer, and the recorder, which knows the weights to hand on under `keep: best`.

    Raises:
        MirasolError: the checkpoint belongs to another unfinished run.
        SystemExit: SIGTERM came; the last step is saved.
    """
    name, config, training, runs = run.name, run.config, run.training, run.paths.runs
    _quieten()
    use_backend(network, training.attention)
    apply_recompute(network, training.recompute)
    if training.compile:
        compile_blocks(network)
    leader = is_leader()
    amp = training.precision == "16-mixed"  # refuses fused AdamW
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpoints(runs, training.keep_checkpoints, training.keep_every)
        origin = begin(ranks, checkpoints, name, made_by)
        start = origin.step
        data.start, data.num_queries = start * config.batch_size, network.config.num_queries
        module = PhaseModule(network, config, seed=training.seed, fused=not amp)
        hidden = None if leader else stack.enter_context(Path(os.devnull).open("w"))
        validation = (
            Validation(data.val_batches, *data.families()) if data.has_texts else ClipValidation(data.val_clips)
        )
        progress = Progress(name, run.samples, "clips", done=data.start, stream=hidden)
        recorder = Recorder(run, validation, progress, made_by, origin, ranks)
        trainer = build_trainer(run, start, recorder)
        limit_waits(trainer.strategy, training.timeout)
        take_signals(trainer)
        stack.enter_context(reproducible(training, cpu=trainer.strategy.root_device.type == "cpu"))
        if leader:
            _print_origin(run, origin, checkpoints)
        stack.enter_context(recorder.progress)
        try:
            network.log_mel = data.front_end(trainer.strategy.root_device)
            path = checkpoints.path(start) if start else None
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
            module.finish()
        except SystemExit as leaving:
            if leader and leaving.code == STATUS:
                print(f"[{name}] stopped by SIGTERM: run again to resume from the last checkpoint", file=sys.stderr)
            raise
    return trainer, recorder


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
    training, processes, runs = run.training, run.processes, run.paths.runs
    # Named, because Lightning takes a process within a Slurm job for a rank.
    plugins: list[Any] = [AtomicCheckpointIO(), TorchElasticEnvironment() if is_rank() else LightningEnvironment()]
    logger = make_logger(run, start)
    try:
        return pl.Trainer(
            accelerator=training.accelerator, devices=processes.devices, num_nodes=processes.nodes,
            precision=training.precision, strategy=build_strategy(run),  # type: ignore[arg-type]
            max_steps=run.config.steps, max_epochs=-1, logger=logger, callbacks=[recorder], plugins=plugins,
            default_root_dir=runs, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise MirasolError(
            f"training.accelerator {training.accelerator}, {processes.devices} devices (cluster.yaml): not on this "
            f"machine ({error}); `mirasol doctor` says what there is"
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


def _print_origin(run: PhaseRun, origin: Origin, checkpoints: Checkpoints) -> None:
    for note in origin.notes:
        print(f"[{run.name}] {note}", file=sys.stderr)
    if origin.step:
        path = checkpoints.path(origin.step)
        print(f"[{run.name}] resumes at step {origin.step} of {run.config.steps}, {path}", file=sys.stderr)


def _quieten() -> None:
    """Suppress Lightning's remarks about the machine and about deliberate choices."""
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    # that a block which is computed again changes nothing in place: none does
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*", ".*ModelCheckpoint.*", ".*no `val_dataloader`.*", ".*LeafSpec.*",
        ".*all_gather is deprecated.*",  # Lightning's own call
        ".*FSDP2-wrapped module .* returned a view.*",  # blocks change nothing in place
    ):  # fmt: skip
        warnings.filterwarnings("ignore", message)
