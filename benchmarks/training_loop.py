"""The cost of training in Lightning, with curves and checks, over a bare loop of the same steps.

    mirasol bench training_loop [--json FILE] [--rounds 5] [--steps 60] [--quick]

The demo's model and one batch in memory; the two take turns in one process on one thread. CPU time is compared,
since another process would disturb elapsed time. The difference between a long and a short run gives the time of a
step without start, evaluation and checkpoint.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from common import arguments, median_ms, ratio, report, table
from inputs import demo_config, random_batch

from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import PhaseConfig, PhaseRun, RunPaths, TrainingConfig
from mirasol.training.optim import build_optimizer, learning_rate
from mirasol.training.trainer import fit, reproducible

TRAINING = TrainingConfig(threads=1, workers=0, accelerator="cpu")
SHORT = 20  # steps of the short run


class OneBatch(pl.LightningDataModule):
    """The same batch for ever, to learn from and to score."""

    def __init__(self, config: ModelConfig, clips: int, texts: int = 8, chunks: int = 4) -> None:
        super().__init__()
        self.batch = random_batch(config, clips, chunks, texts, length=20)

    def families(self) -> tuple[dict[str, str], dict[str, str]]:
        return {name: "all" for row in self.batch.example_ids for name in row}, {}

    def front_end(self, device: torch.device) -> None:
        """The batch has features."""

    def train_dataloader(self) -> Iterator[list[Batch]]:
        return itertools.repeat([self.batch])

    def val_batches(self, rank: int, world: int) -> list[Batch]:
        return [self.batch]


def bare(model: ModelConfig, config: PhaseConfig, batch: Batch) -> float:
    """CPU seconds of ``config.steps`` steps of the shortest loop that trains the same."""
    with reproducible(TRAINING, cpu=True):
        torch.manual_seed(1)
        network = Mirasol(model)
        optimizer = build_optimizer(network, config, fused=True)
        begun = time.process_time()
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            losses = network(batch)
            optimizer.zero_grad()
            (
                losses["text"] + config.latent_weight * losses["latent"] + config.video_weight * losses["video"]
            ).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
        return time.process_time() - begun


def whole(model: ModelConfig, config: PhaseConfig, data: OneBatch) -> float:
    """CPU seconds of the same by the trainer, with all that belongs to a run."""
    torch.manual_seed(1)
    network = Mirasol(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = PhaseRun("finetune", config, TRAINING, ClipSpec(), RunPaths(*[folder] * 5))
        begun = time.process_time()
        fit(run, network, data, {})  # type: ignore[arg-type]
        return time.process_time() - begun


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=60, help="of one timing")
    options = parser.parse_args()
    steps = 10 if options.quick else options.steps
    model = demo_config()
    config = PhaseConfig(steps=steps, checkpoint_every=10**6)
    longer = dataclasses.replace(config, steps=steps + SHORT)
    shorter = dataclasses.replace(config, steps=SHORT)
    data = OneBatch(model, config.batch_size)
    taken: dict[str, list[float]] = {"bare": [], "trainer": []}
    rows: list[tuple[object, ...]] = [("CPU time of a step, ms", "bare loop", "trainer", "trainer / bare")]
    for number in range(options.rounds):
        taken["bare"].append((bare(model, longer, data.batch) - bare(model, shorter, data.batch)) / steps)
        taken["trainer"].append((whole(model, longer, data) - whole(model, shorter, data)) / steps)
        first, second = taken["bare"][-1], taken["trainer"][-1]
        rows.append((f"round {number + 1}", first * 1e3, second * 1e3, second / first))
    table(rows)
    ratios = {"trainer_over_bare_loop": ratio(taken["trainer"], taken["bare"])}
    report("training_loop", options.json, ratios, {"milliseconds": {k: median_ms(v) for k, v in taken.items()}})


if __name__ == "__main__":
    main()
