"""Checkpoints of several processes: resumed by other numbers of them, and how long a save holds up the steps.

`mirasol bench cluster` calls both functions. Each starts real processes under torchrun on the CPU.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import rounded

from mirasol.model.config import ModelConfig
from mirasol.training.config import PhaseConfig, PhaseRun, RunPaths, TrainingConfig, started_processes

FOLDER = Path(__file__).parent
PARTS = ("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "text")
TRAINING = TrainingConfig(threads=1, workers=0, accelerator="cpu", logger="none")
PHASE = PhaseConfig(trained="all", warmup=1, val_clips=2, texts_per_clip=2, mute=0.0, blank=0.0, feature_mask=0.0)
BATCH = 12  # divides among 1, 2, 3 and 4 processes
STEPS, STOP = 8, 4


def resharded_difference() -> dict[str, Any]:
    """Saved by 2 processes in shards, loaded by 1, 3 and 4: the largest relative difference of a later step's loss.

    Compared with 2 processes that nothing stops. ``rounds``: for 1, 3 and 4 processes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_world(folder / "world")
        start("phase", 2, folder / "world", folder / "alone", "full", 0)
        start("phase", 2, folder / "world", folder / "first", "full", STOP, stopped=True)
        wanted = losses(folder / "alone")
        found = []
        for processes in (1, 3, 4):
            project = folder / str(processes)
            shutil.copytree(folder / "first", project)
            start("phase", processes, folder / "world", project, "full" if processes > 1 else "none", 0)
            ours = losses(project)
            assert list(ours) == list(wanted), (ours, wanted)
            found.append(max(abs(ours[step] / wanted[step] - 1) for step in ours if step > STOP))
    return {"value": rounded(max(found)), "rounds": [rounded(each) for each in found]}


def async_save_blocking(rounds: int = 5, sharding: str = "full", width: int = 512) -> dict[str, Any]:
    """Seconds that a save beside the steps holds them up, over those of a save that they wait for; the median.

    Two processes train a model whose state has about 150 MB at ``width`` 512, and save in both ways in turn; the time
    is that of the slower process, with the wait for a save before that is not yet done. The save that steps wait for
    writes from the weights themselves, without a copy.
    """
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        start("saves", 2, project, rounds, sharding, width)
        each = [json.loads((project / f"seconds-{rank}.json").read_text()) for rank in (0, 1)]
    slower = {way: [max(pair) for pair in zip(*(times[way] for times in each), strict=True)] for way in each[0]}
    found = [beside / within for beside, within in zip(slower["beside"], slower["within"], strict=True)]
    return {"value": rounded(statistics.median(found)), "rounds": [rounded(ratio) for ratio in found]} | {
        f"seconds_{way}": [rounded(second) for second in seconds] for way, seconds in slower.items()
    }


def start(function: str, processes: int, *arguments: object, stopped: bool = False) -> None:
    """Call ``function`` of this file in so many processes; ``stopped``: by SIGTERM, so that they do not end with 0."""
    code = f"import sys, cluster_saves; cluster_saves.{function}(*sys.argv[1:])"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python"]
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *torchrun, sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if bool(done.returncode) != stopped:
        raise RuntimeError(f"{function} of {processes} processes ended with {done.returncode}:\n{done.stderr}")


def losses(project: Path) -> dict[int, float]:
    """The loss of each step."""
    lines = (project / "runs/curves.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def small_world(folder: Path) -> None:
    """The built-in world with its tokenizer and shards."""
    from mirasol.data.manifest import read_manifest
    from mirasol.data.shards.build import build_shards
    from mirasol.data.shards.config import ShardsSpec
    from mirasol.data.world.make import make_world
    from mirasol.media.clip import ClipSpec
    from mirasol.tokenizer import TokenizerSpec, train_tokenizer

    make_world(folder / "data", clips=24, workers=1)
    examples = read_manifest(folder / "data/manifest.jsonl")
    train_tokenizer(
        [text for e in examples for text in (e.prompt, *e.answers)], TokenizerSpec(), folder / "tokenizer.json"
    )
    build_shards(folder / "data", folder / "shards", ClipSpec(), ShardsSpec(workers=1))


def sized(config: ModelConfig, layers: int, width: int) -> ModelConfig:
    """``config`` with parts of these sizes, without dropout, whose masks differ by process."""
    sizes = {
        part: dataclasses.replace(getattr(config, part), layers=layers, width=width, hidden=2 * width, head=width // 4)
        for part in PARTS
    }
    return dataclasses.replace(config, dropout=0.0, **sizes)


def phase(world: str, project: str, sharding: str, stop: str) -> None:
    """One process of a phase; SIGTERM comes during step ``stop`` if it is not 0."""
    from inputs import demo_config

    from mirasol.media.clip import ClipSpec
    from mirasol.tokenizer import Tokenizer
    from mirasol.training.callbacks import Recorder
    from mirasol.training.trainer import run_phase

    begins = Recorder.on_train_batch_start

    def begin(self: Recorder, trainer: Any, *given: Any) -> None:
        begins(self, trainer, *given)
        if trainer.global_step + 1 == int(stop):
            os.kill(os.getpid(), signal.SIGTERM)

    Recorder.on_train_batch_start = begin  # type: ignore[method-assign]
    folder, data = Path(project), Path(world)
    paths = RunPaths(data / "shards", data / "tokenizer.json", *(folder / name for name in ("cache", "runs", "build")))
    words = Tokenizer.load(data / "tokenizer.json")
    model = dataclasses.replace(demo_config(), vocabulary=words.vocabulary, max_text=words.max_text)
    config = dataclasses.replace(PHASE, tasks="qa", steps=STEPS, checkpoint_every=1, batch_size=BATCH)
    training = dataclasses.replace(TRAINING, sharding=sharding)
    run_phase(PhaseRun("finetune", config, training, ClipSpec(), paths, (), started_processes()), sized(model, 1, 32))


def saves(project: str, rounds: str, sharding: str, width: str) -> None:
    """One process that trains on one batch and times its saves, in turn beside the steps and within them."""
    import pytorch_lightning as pl
    import torch
    from inputs import demo_config, random_batch

    from mirasol.media.clip import ClipSpec
    from mirasol.model.batch import Batch
    from mirasol.model.mirasol import Mirasol
    from mirasol.training.callbacks import Recorder
    from mirasol.training.ranks import join
    from mirasol.training.saving import Saving
    from mirasol.training.trainer import fit

    class Within(Saving):
        """Writes in the step."""

        def begin(self, state: Any, write: Any) -> None:
            write(state)
            if self.after is not None:
                self.after()

    class OneBatch(pl.LightningDataModule):
        """The same batch for ever, to learn from and to score."""

        has_texts = True

        def families(self) -> tuple[dict[str, str], dict[str, str]]:
            return {name: "all" for row in batch.example_ids for name in row}, {}

        def front_end(self, device: torch.device) -> None:
            """The batch has features."""

        def train_dataloader(self) -> Iterator[list[Batch]]:
            return itertools.repeat([batch])

        def val_batches(self, rank: int, world: int) -> list[Batch]:
            return [batch]

    seconds: dict[str, list[float]] = {"beside": [], "within": []}
    save = Recorder._save

    def timed(self: Recorder, trainer: Any, step: int, **named: Any) -> None:
        beside = self.saving
        if len(seconds["beside"]) > len(seconds["within"]):  # and the save before is done
            beside.wait()
            self.saving = Within(beside.ranks)
        way = "beside" if self.saving is beside else "within"
        trainer.strategy.barrier()
        begun = time.perf_counter()
        save(self, trainer, step, last=False, stop=False)
        seconds[way].append(time.perf_counter() - begun)
        self.saving = beside
        if named["last"]:
            beside.wait()

    Recorder._save = timed  # type: ignore[method-assign]
    folder, count = Path(project), int(rounds) + 1  # the first round warms up
    config = dataclasses.replace(PHASE, tasks="qa", steps=2 * count * 4, checkpoint_every=4, batch_size=2)
    model = sized(demo_config(), 1, int(width))
    batch = random_batch(model, 1, 2, 2, length=20)
    training = dataclasses.replace(TRAINING, sharding=sharding)
    run = PhaseRun("finetune", config, training, ClipSpec(), RunPaths(*[folder] * 5), (), started_processes())
    with join(60.0) as ranks:
        torch.manual_seed(1)
        network = Mirasol(model)
        fit(run, network, OneBatch(), {}, ranks)  # type: ignore[arg-type]
        path = folder / f"seconds-{ranks.rank}.json"
        path.write_text(json.dumps({way: times[1:] for way, times in seconds.items()}))
