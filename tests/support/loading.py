"""Loaders over the tiny shards, and how their batches are compared."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from support.shards import TinyShards

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import GlobalOrder, TrainingLoader, make_loader
from mirasol.data.loading.samples import Sample, SampleSettings, TrainingSamples
from mirasol.data.manifest import read_manifest
from mirasol.model.batch import Batch
from mirasol.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer

Make = Callable[..., TrainingLoader]
ORDER = {"batch_size", "start", "rank", "world"}  # fields of GlobalOrder
READING = {"workers", "waveform", "failures"}
SETTINGS: dict[str, Any] = {
    "tasks": ("qa",),
    "batch_size": 3,
    "texts_per_clip": 2,
    "caption_weight": 0.3,
    "seed": 5,
}


@pytest.fixture(scope="session")
def tokenizer(tiny_shards: TinyShards, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    rows = read_manifest(tiny_shards.data / "manifest.jsonl")
    train_tokenizer([t for e in rows for t in (e.prompt, *e.answers)], TokenizerSpec(64, max_text=40), path)
    return Tokenizer.load(path)


@pytest.fixture
def loader(tiny_shards: TinyShards, tokenizer: Tokenizer) -> Make:
    def make(**changes: Any) -> TrainingLoader:
        return loader_of(ShardDataset(tiny_shards.folder, "train"), tokenizer, **(SETTINGS | changes))

    return make


def loader_of(shards: ShardDataset, tokenizer: Tokenizer, **values: Any) -> TrainingLoader:
    """A loader by the fields of its settings and of its order."""
    order, reading = ({k: v for k, v in values.items() if k in names} for names in (ORDER, READING))
    rest = {k: v for k, v in values.items() if k not in ORDER | READING}
    return make_loader(shards, tokenizer, SampleSettings(**rest), GlobalOrder(**order), **reading)


def in_turn(ranks: Sequence[Sequence[str]], size: int) -> list[str]:
    """The keys of all ranks in the global order: of each step first the ``size`` of rank 0, then those of rank 1."""
    return [key for low in range(0, len(ranks[0]), size) for rank in ranks for key in rank[low : low + size]]


def digest(batches: Iterable[Batch], count: int) -> str:
    """One hash of all that the first ``count`` batches hold."""
    total = hashlib.sha256()
    for batch in itertools.islice(batches, count):
        for value in vars(batch).values():
            total.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return total.hexdigest()


def keys(loader: Iterable[Batch], batches: int) -> list[str]:
    """Clips of the first ``batches`` batches."""
    return [key for batch in itertools.islice(loader, batches) for key in batch.keys]


class KilledAtSeven(TrainingSamples):
    """Samples whose reader the system kills when it comes to number 7."""

    def read(self, sample: int, into: Any = None) -> Sample:
        if sample == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(sample, into)
