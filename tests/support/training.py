"""A built-in world small enough to train on in a test, and one training phase on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mirasol.data.manifest import UNLABELLED, Example, clips_of, read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.world.make import make_world
from mirasol.media.clip import ClipSpec
from mirasol.model.config import ModelConfig, ModelSpec
from mirasol.model.sizes.presets import build_config
from mirasol.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer
from mirasol.training.config import PhaseConfig, PhaseRun, Processes, RunPaths, TrainingConfig, started_processes
from mirasol.training.trainer import run_phase

PHASE = PhaseConfig(steps=4, batch_size=4, warmup=1, checkpoint_every=2, val_clips=4, texts_per_clip=4)
PAPER = {  # tasks and trained parts of each phase (S 4)
    "pretrain": ("caption", "audio vit tubes combiner latent reconstruction cross_attention"),
    "audio_pretrain": ("audio_class", "audio"),
    "finetune": ("qa", "all"),
}
TRAINING = TrainingConfig(threads=1, workers=0, accelerator="cpu")


def small_world(folder: Path, clips: int = 12) -> Path:
    """A world with its tokenizer and shards in ``folder``, which it returns."""
    make_world(folder / "data", clips=clips, workers=1)
    examples = read_manifest(folder / "data" / "manifest.jsonl")
    texts = [text for e in examples for text in (e.prompt, *e.answers)]
    train_tokenizer(texts, TokenizerSpec(), folder / "tokenizer.json")
    build_shards(folder / "data", folder / "shards", ClipSpec(), ShardsSpec(workers=1))
    return folder


def small_model(world: Path) -> ModelConfig:
    """The demo's model, one layer a part, for the world in ``world``."""
    tokenizer = Tokenizer.load(world / "tokenizer.json")
    config = build_config(
        ModelSpec(),
        size=48,
        frames_per_chunk=4,
        mels=32,
        audio_columns=16,
        vocabulary=tokenizer.vocabulary,
        max_text=tokenizer.max_text,
    )
    parts = ("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "text")
    small = {part: dataclasses.replace(getattr(config, part), layers=1, width=32, hidden=32, head=8) for part in parts}
    return dataclasses.replace(config, dropout=0.1, **small)


def train(
    world: Path,
    project: Path,
    name: str = "finetune",
    init: str | None = None,
    before: tuple[str, ...] = (),
    processes: Processes | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Run phase ``name`` on ``world`` in ``project``; ``changes`` are fields of either config."""
    ours = {field.name for field in dataclasses.fields(PhaseConfig)}
    tasks, trained = PAPER[name]
    paper = dataclasses.replace(PHASE, tasks=tasks, trained=trained)
    phase = dataclasses.replace(paper, **{key: value for key, value in changes.items() if key in ours})
    shared = dataclasses.replace(TRAINING, **{key: value for key, value in changes.items() if key not in ours})
    runs, build = project / "runs", project / "build"
    start = None if init is None else build / init
    paths = RunPaths(world / "shards", world / "tokenizer.json", runs / "cache", runs / name, build / name, start)
    model = small_model(world)
    if "dropout" in changes:
        model = dataclasses.replace(model, dropout=phase.dropout)
    return run_phase(PhaseRun(name, phase, shared, ClipSpec(), paths, before, processes or started_processes()), model)


def copy_without(world: Path, folder: Path, task: str) -> Path:
    """``world`` again in ``folder``, its manifest without the examples of ``task``."""
    return copy_with(world, folder, [e for e in read_manifest(world / "data" / "manifest.jsonl") if e.task != task])


def unlabelled(world: Path, folder: Path, texts: int = 0, *, val: bool = True) -> Path:
    """``world`` again in ``folder``, all but the first ``texts`` clips of its train split without texts.

    ``val``: keep the val split.
    """
    examples: list[Example] = []
    learnt = 0
    for clip in clips_of(read_manifest(world / "data" / "manifest.jsonl")):
        if clip.split != "train" or learnt < texts:
            learnt += clip.split == "train"
            examples += clip.examples if val or clip.split == "train" else ()
        else:
            one = dataclasses.replace(clip.examples[0], task=UNLABELLED, prompt="", answers=(), family="", options=())
            examples.append(one)
    return copy_with(world, folder, examples)


def copy_with(world: Path, folder: Path, examples: list[Example]) -> Path:
    """``world`` again in ``folder``, with other ``examples`` of its media."""
    folder.mkdir()
    (folder / "data").mkdir()
    (folder / "data" / "media").symlink_to(world / "data" / "media")
    write_manifest(folder / "data" / "manifest.jsonl", examples)
    build_shards(folder / "data", folder / "shards", ClipSpec(), ShardsSpec(workers=1))
    (folder / "tokenizer.json").symlink_to(world / "tokenizer.json")
    return folder
