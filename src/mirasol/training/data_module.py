"""Where the batches of a phase come from: the loader of the train split, and a fixed part of the val split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirasol.core.errors import MirasolError
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.failures import Damage, DamagedClip, Failures
from mirasol.data.loading.loader import TrainingLoader, collate, log_mel_of, make_loader
from mirasol.data.loading.samples import Clips, EvaluationSamples, Sample
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.logmel import LogMel
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import PhaseConfig, TrainingConfig


class Feed:
    """The data of one phase.

    Args:
        tasks: what the phase learns from; captions beside them follow ``config.caption_weight``.
        cache: folder that keeps decoded clips, for all phases and processes of this machine.
        runs: folder of the run, for the list of damaged clips.

    Raises:
        MirasolError: the shards or the tokenizer are missing, or the shards were cut otherwise than ``clip`` says.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        config: PhaseConfig,
        training: TrainingConfig,
        *,
        clip: ClipSpec,
        shards: Path,
        tokenizer: Path,
        cache: Path,
        runs: Path,
    ) -> None:
        self.runs = runs
        self.tasks, self.config, self.training = tasks, config, training
        self.tokenizer = Tokenizer.load(tokenizer)
        self.train = ShardDataset(shards, "train", cache=cache, any_size=True)
        self.val = ShardDataset(shards, "val", cache=cache, any_size=True)
        if self.train.spec != clip:
            raise MirasolError(
                f"{shards}: cut by other settings of `clip` than these ({self.train.spec}, now {clip}): "
                "make the shards again with `dvc repro shards`"
            )
        self._val: tuple[EvaluationSamples, Failures] | None = None
        self._start = 0  # training samples consumed before this run

    @property
    def has_examples(self) -> bool:
        """Whether the train split has any example of the phase's tasks."""
        return any(row["task"] in self.tasks for row in self._rows(self.train))

    @staticmethod
    def _rows(shard_set: ShardDataset) -> Iterator[dict[str, Any]]:
        """Examples of all clips; none where they are lost, which is told when batches are made."""
        for number in range(len(shard_set)):
            with contextlib.suppress(DamagedClip):
                yield from shard_set.meta(number)["examples"]

    def front_end(self, device: torch.device) -> LogMel | None:
        """What makes log-mel within a step on ``device``; ``None`` where batches bring it (docs/decisions/0038)."""
        return log_mel_of(self.train.spec) if takes_waveforms(device, self.train.spec) else None

    def train_loader(self, start: int, rank: int, world: int, waveform: bool = False) -> TrainingLoader:
        """Endless batches for one of ``world`` processes, from training sample ``start`` on.

        With ``waveform`` they bring sound of which the model makes log-mel: the same to 1e-5, with the same draws.

        Raises:
            MirasolError: there is no example to learn from, a text is longer than the text cache, or more clips
                are damaged than ``training.max_damaged``.
        """
        config = self.config
        keys = {field.name: getattr(config, field.name) for field in dataclasses.fields(Augmentation)}
        self._start = start
        failures = Failures(self.runs, self.training.max_damaged, start=start, rank=rank, world=world)
        return make_loader(
            self.train,
            self.tokenizer,
            tasks=self.tasks,
            batch_size=config.batch_size // world,
            texts_per_clip=config.texts_per_clip,
            caption_weight=config.caption_weight,
            seed=self.training.seed,
            start_sample=start,
            workers=self.training.workers,
            mute=config.mute,
            blank=config.blank,
            augmentation=Augmentation(**keys),
            waveform=waveform,
            failures=failures,
            rank=rank,
            world=world,
        )

    def families(self) -> dict[str, str]:
        """The question family of each example id of the val split; its task where it has no family.

        Raises:
            MirasolError: the val split has no example of the phase's tasks.
        """
        found = {row["id"]: row["family"] or row["task"] for row in self._rows(self.val) if row["task"] in self.tasks}
        if not found:
            raise MirasolError(
                f"{self.val.folder}: the split val has no example of task {' or '.join(self.tasks)} to score while "
                "training on that task: give some rows of it in the manifest the split val"
            )
        return found

    def val_batches(self, rank: int, world: int) -> Iterator[Batch]:
        """The part of the val split that process ``rank`` scores, with all texts of the phase's tasks.

        At most ``config.val_clips`` clips in all, spread evenly over the split. They are read in this
        process: the first evaluation decodes them, later ones find them in the cache; with features, on any device.
        Damaged clips are told and left out: a score over fewer clips says so by its number of texts.

        Raises:
            MirasolError: more clips are damaged than ``training.max_damaged``.
        """
        if self._val is None:
            share = self.training.max_damaged
            failures = Failures(self.runs, share, start=self._start, rank=rank, world=world, split="val")
            clips = Clips(self.val, self.tokenizer, self.tasks, captions=False, failures=failures)
            self._val = EvaluationSamples(clips, "none", 0), failures
        (samples, failures), size = self._val, max(1, self.config.batch_size // world)
        count = min(self.config.val_clips, len(samples))
        chosen = np.linspace(0, len(samples) - 1, count).round().astype(int)[rank::world]
        for low in range(0, len(chosen), size):
            sound = self._sound(samples, chosen[low : low + size].tolist(), failures)
            if not sound:
                continue
            yield collate(
                sound,
                spec=self.val.spec,
                length=self.tokenizer.max_text,
                width=None,
                tasks=self.tasks,
                caption_weight=1.0,
            )

    def _sound(self, samples: EvaluationSamples, numbers: list[int], failures: Failures) -> list[Sample]:
        """Those of the val split's samples that can be read."""
        found = []
        for number in numbers:
            try:
                found.append(samples[number])
            except DamagedClip as error:
                failures.record([Damage(None, error.key, error.why)], len(self.val))
        return found


def takes_waveforms(device: torch.device, clip: ClipSpec) -> bool:
    """Whether to train on waveforms: a GPU has time for log-mel, a CPU would make it again in every epoch.

    Under ``clip.sampling: spread`` each clip has chunks of its own length, which make no batch.
    """
    return device.type == "cuda" and clip.sampling == "rate"
