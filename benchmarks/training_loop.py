"""What training in Lightning, with curves and checks, costs beside a bare loop of the same steps.

    python benchmarks/training_loop.py [--rounds 5] [--steps 60] [--out FILE.json]

The demo's model and one batch in memory; the two take turns in one process on one thread. CPU time is
compared, not the clock: another process beside this one would spoil that. Steps are counted as
the difference between a long and a short run, so that start, evaluation and checkpoint are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from mirasol.core.files import write_json
from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig, ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.presets import build_config
from mirasol.training.config import PhaseConfig, TrainingConfig
from mirasol.training.optim import build_optimizer, learning_rate
from mirasol.training.trainer import fit, reproducible

TRAINING = TrainingConfig(threads=1, workers=0, accelerator="cpu")
SHORT = 20  # steps of the short run


class OneBatch:
    """A feed that gives the same batch for ever, and one clip to score."""

    def __init__(self, config: ModelConfig, clips: int, texts: int = 8, chunks: int = 4) -> None:
        draws = torch.Generator().manual_seed(0)
        frames = (clips, chunks, config.frames_per_chunk, config.size * 3 // 2, config.size)
        tokens = torch.randint(5, config.vocabulary, (clips, texts, 20), generator=draws)
        answers = torch.zeros_like(tokens, dtype=torch.bool)
        answers[:, :, 10:12] = True
        present = torch.ones(clips, chunks, dtype=torch.bool)
        ids = [[f"{clip}-{text}" for text in range(texts)] for clip in range(clips)]
        self.batch = Batch(
            video=torch.randint(16, 236, frames, dtype=torch.uint8, generator=draws),
            audio=torch.randn(clips, chunks, config.audio_columns, config.mels, generator=draws),
            video_present=present,
            audio_present=present,
            tokens=tokens,
            answer_mask=answers,
            text_weight=torch.ones(clips, texts),
            keys=[str(clip) for clip in range(clips)],
            example_ids=ids,
        )

    def families(self) -> dict[str, str]:
        return {name: "all" for row in self.batch.example_ids for name in row}

    def train_loader(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        return itertools.repeat(self.batch)

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


def whole(model: ModelConfig, config: PhaseConfig, feed: OneBatch) -> float:
    """CPU seconds of the same by the trainer, with all that belongs to a run."""
    torch.manual_seed(1)
    network = Mirasol(model)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        fit("finetune", network, feed, config, TRAINING, {}, Path(folder))  # type: ignore[arg-type]
        return time.process_time() - begun


def main() -> None:
    """Measure, print a table, and write the figures where ``--out`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = build_config(
        ModelSpec(), size=48, frames_per_chunk=4, mels=32, audio_columns=16, vocabulary=256, max_text=48
    )
    config = PhaseConfig(steps=arguments.steps, checkpoint_every=10**6)
    longer = dataclasses.replace(config, steps=arguments.steps + SHORT)
    shorter = dataclasses.replace(config, steps=SHORT)
    feed = OneBatch(model, config.batch_size)
    rows = []
    for _ in range(arguments.rounds):
        first = (bare(model, longer, feed.batch) - bare(model, shorter, feed.batch)) / config.steps
        second = (whole(model, longer, feed) - whole(model, shorter, feed)) / config.steps
        rows.append({"bare_ms": first * 1e3, "trainer_ms": second * 1e3, "ratio": second / first})
        print(f"bare {first * 1e3:6.1f} ms  trainer {second * 1e3:6.1f} ms  ratio {second / first:.3f}", flush=True)
    ratios = [row["ratio"] for row in rows]
    result = {
        "what": "CPU time of a training step: trainer against a bare loop",
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "rounds": rows,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(result["ratio"]))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
