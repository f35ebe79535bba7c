"""Runs one training phase, from shards to weights: all files of training are opened here."""

from __future__ import annotations

import contextlib
import dataclasses
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
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write, sha256_file
from mirasol.core.progress import Progress
from mirasol.data.loading.failures import report
from mirasol.data.loading.loader import TrainingLoader
from mirasol.media.clip import ClipSpec
from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.callbacks import Recorder
from mirasol.training.checkpoint import CHECKPOINT, AtomicCheckpointIO, fingerprint, resumable_step
from mirasol.training.config import PhaseConfig, TrainingConfig
from mirasol.training.curves import CURVES, read_lines
from mirasol.training.data_module import Feed
from mirasol.training.module import PhaseModule
from mirasol.training.phases import Phase, find_phase, freeze
from mirasol.training.validation import Validation
from mirasol.training.weights import WEIGHTS, load_model, save_weights

# Where, by how many processes and by which kernels a phase runs, and when it gives up: a checkpoint may move.
WHERE = ("workers", "max_damaged", "devices", "nodes", "accelerator", "attention")
NAMED = ("init",)  # a folder: what it holds is among the hashes of the inputs
CACHE = "cache"  # folder of decoded clips beside the folders of the phases


@contextlib.contextmanager
def reproducible(training: TrainingConfig, *, cpu: bool) -> Iterator[None]:
    """torch as the settings say, and as it was afterwards.

    Sums depend on the number of threads, so that is part of the result, and on the processor's instruction
    set, which no setting can fix. On a CPU deterministic kernels cost nothing; on a GPU some are slow or
    missing, and the result is only as equal as its kernels are.
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


def initial_model(model: ModelConfig | None, init: Path | None, seed: int) -> Mirasol:
    """The weights that a phase starts from: those in ``init``, or random ones by the seed.

    Raises:
        MirasolError: ``init`` holds no model, or one of other sizes than ``model``; or its parts do not fit together.
        ValueError: neither is given.
    """
    if init is None:
        if model is None:
            raise ValueError("a phase needs the sizes of a model or the folder of a trained one: both are None")
        torch.manual_seed(seed)
        try:
            return Mirasol(model)
        except ValueError as error:
            raise MirasolError(f"the parameters make no model: {error}") from error
    network = load_model(init)
    if model is not None and network.config != model:
        old, new = network.config.to_dict(), model.to_dict()
        changed = [f"{name} ({old[name]}, now {new[name]})" for name in old if old[name] != new[name]]
        raise MirasolError(f"{init}: its model differs from the parameters in {'; '.join(changed)}: train it again")
    return network


def describe(
    name: str,
    config: PhaseConfig,
    training: TrainingConfig,
    clip: ClipSpec,
    model: ModelConfig,
    shards: Path,
    tokenizer: Path,
    init: Path | None,
) -> dict[str, Any]:
    """The fingerprint of a phase: all that its weights follow from."""
    shared = {key: value for key, value in dataclasses.asdict(training).items() if key not in WHERE + NAMED}
    settings = {
        "name": name,
        "phase": dataclasses.asdict(config),
        "training": shared,
        "clip": dataclasses.asdict(clip),
        "model": model.to_dict(),
    }
    inputs = {"shards": sha256_file(shards / "shards.json"), "tokenizer": sha256_file(tokenizer)}
    if init is not None:
        inputs["init"] = sha256_file(init / WEIGHTS)
    return fingerprint(settings, inputs)


def run_phase(
    name: str,
    config: PhaseConfig,
    training: TrainingConfig,
    clip: ClipSpec,
    model: ModelConfig | None,
    shards: Path,
    tokenizer: Path,
    init: Path | None,
    out: Path,
    runs: Path,
) -> dict[str, Any]:
    """Train one phase, or go on with one that was killed, and write its weights.

    Args:
        name: ``pretrain``, ``audio_pretrain`` or ``finetune``.
        model: sizes of the model; may be ``None`` with ``init``, and must agree with it otherwise.
        shards: folder of shards with ``shards.json``.
        tokenizer: ``tokenizer.json``.
        init: folder of the weights to start from, ``None`` for random ones by the seed.
        out: folder for ``weights.safetensors``, ``config.json`` and ``curves.jsonl``, each written whole.
        runs: folder for the checkpoint, curves and TensorBoard files of the run; survives a kill.

    Returns:
        The final figures: plain values, equal for equal inputs, with the damaged clips where there were any.
        Every process returns them.

    Raises:
        MirasolError: inputs do not fit, the phase has nothing to learn from, the loss is no number, too
            many clips are damaged, or the disk cannot be written.
    """
    phase = find_phase(name)
    check_devices(name, config, training)
    cache = runs.parent / CACHE
    feed = Feed(phase.tasks, config, training, clip=clip, shards=shards, tokenizer=tokenizer, cache=cache, runs=runs)
    network = initial_model(model, init, training.seed)
    if not phase.required and not feed.has_examples:
        return _hand_on(name, phase, network, out)
    freeze(network, phase)
    made_by = describe(name, config, training, clip, network.config, shards, tokenizer, init)
    trainer = fit(name, network, feed, config, training, made_by, runs)
    lines = read_lines(runs / CURVES)
    if trainer.is_global_zero:
        with atomic_write(out / CURVES) as file:
            file.write((runs / CURVES).read_bytes())
        save_weights(out, network)
    trainer.strategy.barrier("weights are written")
    damaged = report(runs, config.steps * config.batch_size)
    return summary(lines) | ({"damaged": damaged} if damaged else {})


def check_devices(name: str, config: PhaseConfig, training: TrainingConfig) -> None:
    """Raise ``MirasolError`` unless each device gets an equal share of a step's clips."""
    world = training.devices * training.nodes
    if config.batch_size % world:
        raise MirasolError(
            f"{name}.batch_size is {config.batch_size}, the clips of one step on all devices; it does not divide "
            f"among {world} (training.devices x training.nodes): choose a multiple of {world}"
        )


def fit(
    name: str,
    network: Mirasol,
    feed: Feed,
    config: PhaseConfig,
    training: TrainingConfig,
    made_by: dict[str, Any],
    runs: Path,
) -> pl.Trainer:
    """Train ``network`` in place for ``config.steps`` steps in all, from the checkpoint in ``runs`` if it fits."""
    _quieten()
    use_backend(network, training.attention)
    leader = getattr(rank_zero_only, "rank", 0) == 0  # known before Lightning starts its processes
    checkpoint, clips = runs / CHECKPOINT, config.batch_size
    step, reasons = resumable_step(checkpoint, made_by)
    start = step or 0
    amp = training.precision == "16-mixed"  # skips steps with infinite gradients by itself, and refuses fused AdamW
    module = PhaseModule(network, config, seed=training.seed, fused=not amp)
    with contextlib.ExitStack() as stack:
        hidden = None if leader else stack.enter_context(Path(os.devnull).open("w"))
        recorder = Recorder(
            name,
            folder=runs,
            validation=Validation(feed.val_batches, feed.families()),
            progress=Progress(name, config.steps * clips, "clips", done=start * clips, stream=hidden),
            made_by=made_by,
            start=start,
            watched=("loss",) if amp else ("loss", "grad_norm"),
        )
        trainer = build_trainer(config, training, runs, start, recorder)
        stack.enter_context(reproducible(training, cpu=trainer.strategy.root_device.type == "cpu"))
        stack.enter_context(stopping_between_steps())
        if leader:
            _say_where_from(name, checkpoint, step, config.steps, reasons)
        stack.enter_context(recorder.progress)
        try:
            network.log_mel = feed.front_end(trainer.strategy.root_device)
            data = TrainData(feed, start * clips, waveform=network.log_mel is not None)
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint if start else None, weights_only=True)
        except SIGTERMException:
            # Lightning leaves with status 0, which a pipeline would take for success.
            print(f"[{name}] told to stop: run again to go on from the last checkpoint", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from None
    return trainer


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[None]:
    """Leave SIGTERM to Lightning, which ends the step first: time for a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class TrainData(pl.LightningDataModule):
    """Hands Lightning the loader of this process, which knows its rank only once Lightning has started."""

    def __init__(self, feed: Feed, start: int, *, waveform: bool) -> None:
        super().__init__()
        self.feed = feed
        self.start = start
        self.waveform = waveform

    def train_dataloader(self) -> TrainingLoader:
        assert self.trainer is not None
        return self.feed.train_loader(self.start, self.trainer.global_rank, self.trainer.world_size, self.waveform)


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the last line: means over the last steps, and the last evaluation."""
    last = dict(lines[-1])
    return {"steps": last.pop("step"), "val": last.pop("val"), "train": last}


def build_trainer(
    config: PhaseConfig, training: TrainingConfig, runs: Path, start: int, recorder: Recorder
) -> pl.Trainer:
    """A trainer that leaves curves, checkpoints and the progress bar to :class:`Recorder`.

    Raises:
        MirasolError: this machine has not the devices that are asked for.
    """
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Its own requeueing would resume from a checkpoint that has no fingerprint and knows no sample count.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    # purge_step: what TensorBoard has seen after the checkpoint did not happen
    board = TensorBoardLogger(runs, name="", version="tensorboard", purge_step=start + 1)
    try:
        return pl.Trainer(
            accelerator=training.accelerator,
            devices=training.devices,
            num_nodes=training.nodes,
            precision=training.precision,  # type: ignore[arg-type]
            max_steps=config.steps,
            max_epochs=-1,
            logger=board,
            callbacks=[recorder],
            plugins=plugins,
            default_root_dir=runs,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError) as error:
        raise MirasolError(
            f"training.accelerator {training.accelerator}, training.devices {training.devices}: not on this machine "
            f"({error}); `mirasol doctor` says what there is"
        ) from error


def _hand_on(name: str, phase: Phase, network: Mirasol, out: Path) -> dict[str, Any]:
    """The phase has nothing to learn from: its weights are those that it started from."""
    reason = f"no training example of task {' or '.join(phase.tasks)}"
    print(f"[{name}] {reason}: the weights are handed on as they are", file=sys.stderr)
    with atomic_write(out / CURVES):
        pass
    save_weights(out, network)
    return {"steps": 0, "skipped": reason}


def _say_where_from(name: str, checkpoint: Path, step: int | None, steps: int, reasons: list[str]) -> None:
    if step is not None:
        print(f"[{name}] goes on from step {step} of {steps}, {checkpoint}", file=sys.stderr)
    elif reasons:
        shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        print(f"[{name}] starts anew: {checkpoint} is of another run: {shown}", file=sys.stderr)


def _quieten() -> None:
    """Lightning's remarks about the machine and about choices made here on purpose."""
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*ModelCheckpoint.*", ".*no `val_dataloader`.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)
