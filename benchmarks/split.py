"""One training step however it is cut: processes, micro-batches, copies or shards; the trainer's own step, in fp64.

Imported by ``mirasol bench train`` and by the tests; as a script, one process of several (torchrun):

    python -m torch.distributed.run --nproc-per-node 2 benchmarks/split.py FOLDER [--steps 50] [--optimizer muon]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from inputs import random_batch
from torch import Tensor

from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch, text_targets
from mirasol.model.config import ModelConfig, ModelSpec, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.training.config import OPTIMIZERS, PhaseConfig, PhaseRun, Processes, RunPaths, TrainingConfig
from mirasol.training.module import PhaseModule
from mirasol.training.parallel import whole
from mirasol.training.strategy import build_strategy

SECONDS = 600  # at most, of all cuts for one number of processes
CLIPS, CHUNKS, TEXTS, LENGTH = 8, 4, 3, 9
TINY = Sizes(layers=2, width=24, hidden=48, heads=2, head=8)
# processes -> sharding and clips of a micro-batch; 8 clips a step, so that 1 process with 4 is accumulation x2
CUTS = {
    1: (("none", 0), ("none", 4), ("none", 2)),
    2: (("none", 0), ("none", 2), ("none", 1), ("full", 0), ("full", 2), ("full", 1)),
    4: (("none", 0), ("none", 1), ("full", 0), ("full", 1), ("hybrid", 1)),
}


def model_config() -> ModelConfig:
    """A tiny model with every part of the demo's."""
    demo = build_config(ModelSpec(), size=16, frames_per_chunk=4, mels=8, audio_columns=8, vocabulary=19, max_text=12)
    parts = ("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "text")
    sizes: dict[str, Any] = dict.fromkeys(parts, TINY)
    sizes |= {"patch": 8, "audio_patch": (4, 8), "reconstruction_size": 4, "reconstruction_tube": (2, 2, 2)}
    return dataclasses.replace(demo, num_queries=3, dropout=0.0, **sizes)


def clips(config: ModelConfig, number: int, dtype: torch.dtype) -> Batch:
    """Step ``number``: clips with 1 to 3 texts of unequal length and weight, half of them without sound."""
    batch = random_batch(config, CLIPS, CHUNKS, TEXTS, LENGTH)
    draws = torch.Generator().manual_seed(number)
    batch.audio = torch.randn(batch.audio.shape, generator=draws).to(dtype)
    batch.audio_present[: CLIPS // 2] = False
    batch.video_present[-1, 1:] = False
    places, last = torch.arange(LENGTH), 4 + torch.randint(0, LENGTH - 4, (CLIPS, TEXTS, 1), generator=draws)
    batch.answer_mask = (places >= 3) & (places <= last)
    batch.text_weight = torch.rand(CLIPS, TEXTS, generator=draws) + 0.5
    batch.text_weight[::2, 1:] = 0.0  # padding: these clips have one text
    batch.answer_mask &= batch.text_weight[..., None] > 0
    return batch


def cut(batch: Batch, first: int, count: int) -> Batch:
    """Some clips of a batch, with what the collator adds."""
    rows = {
        name: value[first : first + count]
        for name, value in vars(batch).items()
        if isinstance(value, Tensor | list) and name != "targets"
    }
    part = dataclasses.replace(batch, **rows)
    return dataclasses.replace(part, targets=text_targets(part.tokens, part.answer_mask), complete=False)


class Steps(torch.utils.data.IterableDataset[Any]):
    """This process' micro-batches of each step."""

    def __init__(self, config: ModelConfig, micro: int, dtype: torch.dtype) -> None:
        self.config, self.micro, self.dtype = config, micro, dtype

    def __iter__(self) -> Iterator[list[Batch]]:
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        share = CLIPS // world
        size = self.micro or share
        for number in itertools.count():
            batch = clips(self.config, number, self.dtype)
            yield [cut(batch, rank * share + low, size) for low in range(0, share, size)]


class Watched(PhaseModule):
    """Keeps the whole gradient before it is clipped, and the loss of each step."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.gradients: dict[str, Tensor] = {}
        self.losses: list[float] = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """As :class:`PhaseModule`, after a look at the first gradient."""
        if not self.gradients:
            found = ((name, p.grad) for name, p in self.model.named_parameters())
            self.gradients = {name: whole(grad).clone() for name, grad in found if grad is not None}
        super().on_before_optimizer_step(optimizer)

    def training_step(self, parts: list[Batch], batch_idx: int) -> None:
        """As :class:`PhaseModule`; the loss is a mean over processes."""
        super().training_step(parts, batch_idx)
        loss = self.trainer.strategy.reduce(self.figures["loss"], reduce_op="mean")
        assert isinstance(loss, Tensor)
        self.losses.append(float(loss))


def train(sharding: str, micro: int, phase: PhaseConfig, dtype: torch.dtype) -> Watched:
    """Train the tiny model in this process, which is one of several under torchrun."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    nodes = 2 if sharding == "hybrid" else 1
    if nodes > 1:  # two processes play a node
        os.environ.update(LOCAL_RANK=str(int(os.environ["RANK"]) % 2), GROUP_RANK=str(int(os.environ["RANK"]) // 2))
    processes = Processes(world // nodes, nodes)
    training = TrainingConfig(sharding=sharding, micro_batch=micro, threads=1)
    run = PhaseRun("finetune", phase, training, ClipSpec(), RunPaths(*[Path()] * 5), processes=processes)
    config = model_config()
    torch.manual_seed(0)
    network = Mirasol(config).to(dtype)
    if sharding != "none" and os.environ["RANK"] != "0":
        network = network.to("meta")
    module = Watched(network, phase, seed=0, fused=True)
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes.devices, num_nodes=nodes, strategy=build_strategy(run),
        max_steps=phase.steps, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(Steps(config, micro, dtype), batch_size=None))
    return module


def launch(world: int, folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Run every cut for ``world`` processes; ``gradients`` and ``losses`` by cut, such as ``2 full 1``."""
    script = [str(Path(__file__)), str(folder), *options]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(torchrun if world > 1 else []), *script]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        errors = started.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        started.terminate()  # torchrun ends its processes then
        errors = started.communicate()[1]
        raise RuntimeError(f"{world} processes were not done after {SECONDS} s: {errors[-2000:]}") from None
    if started.returncode:
        raise RuntimeError(f"{world} processes failed: {errors[-2000:]}")
    return {path.stem: torch.load(path, weights_only=True) for path in sorted(folder.glob(f"{world} *.pt"))}


def difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference of two gradients, relative to the largest value of the whole one."""
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    return max(float((found[name] - tensor).abs().max()) for name, tensor in wanted.items()) / largest


def main() -> None:
    """Every cut for the processes that are here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", 1))
    phase = PhaseConfig(
        steps=options.steps, optimizer=options.optimizer, warmup=0, batch_size=CLIPS, latent_weight=0.5,
        video_weight=0.5,
    )  # fmt: skip
    for sharding, micro in CUTS[world]:
        module = train(sharding, micro, phase, getattr(torch, options.precision))
        if int(os.environ.get("RANK", 0)) == 0:
            found = {"gradients": module.gradients, "losses": module.losses}
            torch.save(found, options.folder / f"{world} {sharding} {micro}.pt")


if __name__ == "__main__":
    main()
