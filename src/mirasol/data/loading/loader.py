"""Shards to batches: a global order that depends on seed and sample number alone, resumable at any sample.

Training sample g (counted over the whole training, over all ranks) has the same clip, texts, augmentation and
replacement of a damaged clip for any number of ranks and workers: they follow from the seed and g. The loader's whole
state is therefore one number, the samples consumed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import multiprocessing
import os
import weakref
from collections.abc import Collection, Iterator, Sequence
from multiprocessing import connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mirasol.core.errors import MirasolError
from mirasol.data.conditions import Condition
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import audio_shape, video_shape
from mirasol.data.loading.failures import Damage, Failures
from mirasol.data.loading.samples import Clips, EvaluationSamples, Sample, SampleSettings, TrainingSamples, Wanted
from mirasol.data.loading.texts import stack_texts
from mirasol.data.loading.waveform import NOTHING, chunks_shape
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import (
    FLOOR,
    MEAN_DB,
    SCALE_DB,
    SILENCE,
    black_frame,
    mel_filters,
    window_and_hop,
)
from mirasol.model.batch import Batch, Waveform, text_targets
from mirasol.model.logmel import LogMel, LogMelSpec
from mirasol.tokenizer import Tokenizer

DEATH_SECONDS = 3.0  # longest wait until the system reports the end of a killed process
PREFETCH = 4  # batches that each worker prepares ahead
# A forked process inherits locks that no thread of it will release: FFmpeg and torch deadlock.
START = "forkserver"


@dataclasses.dataclass(frozen=True)
class GlobalOrder:
    """Batches of sample numbers for one rank: together the ranks take ``batch_size * world`` in a row.

    With ``cuts`` these come in so many batches of equal size. Each batch is a row of neighbours, so that a step of two
    micro-batches in one process and one of two processes add up the same parts: their weights are equal, bit for bit.
    """

    batch_size: int  # clips per step and rank
    start: int = 0  # samples consumed before, over all ranks: where an interrupted training continues
    rank: int = 0
    world: int = 1
    cuts: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size // self.cuts
        for first in itertools.count(self.start + self.rank * size, size * self.world):
            yield list(range(first, first + size))


@dataclasses.dataclass(frozen=True)
class BatchForm:
    """The shape of a batch and the weights of its texts."""

    spec: ClipSpec
    length: int  # L
    tasks: Sequence[str]  # their texts weigh 1
    caption_weight: float = 1.0  # of captions next to other tasks
    width: int | None = None  # Q; None: the largest number of texts of a clip
    waveform: bool = False  # the model makes log-mel (:func:`log_mel_of`) of the batch's sound


class _Batches(Dataset[tuple[Batch, list[Damage]]]):
    """Batches by their sample numbers; clips are decoded right into the batch's memory."""

    def __init__(self, samples: TrainingSamples, form: BatchForm, workers: int) -> None:
        self.samples, self.form = samples, form
        self._lent: list[tuple[NDArray[np.uint8], weakref.ref[Any]]] = []
        # Process id and sample of each worker, to name the clip if the system kills it.
        self._at_work = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __getitem__(self, numbers: list[int]) -> tuple[Batch, list[Damage]]:
        video = self._memory((len(numbers), *video_shape(self.form.spec)))
        found = [self._read(number, row) for number, row in zip(numbers, video, strict=True)]
        return collate(found, self.form, video), [damage for sample in found for damage in sample.damage]

    def _read(self, number: int, row: NDArray[np.uint8]) -> Sample:
        worker = get_worker_info()
        if worker is not None:
            self._at_work[worker.id] = torch.tensor([os.getpid(), number])
        return self.samples.read(number, row)

    def killed(self) -> list[int]:
        """The samples that ended processes were reading."""
        working = set(self._at_work[:, 0].tolist())
        ours = [process.sentinel for process in multiprocessing.active_children() if process.pid in working]
        connection.wait(ours, DEATH_SECONDS)  # the connection to a killed process breaks before its end is known
        alive = {process.pid for process in multiprocessing.active_children()}
        return [number for pid, number in self._at_work.tolist() if pid and pid not in alive]

    def _memory(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory for a batch's frames: that of a batch that is no longer referenced, else new.

        The system clears new memory first, which for large clips takes a tenth of the time of decoding them.
        """
        free = [memory for memory, borrower in self._lent if borrower() is None and memory.shape == shape]
        memory = free[0] if free else np.empty(shape, np.uint8)
        lent = memory.view()  # the batch's tensor keeps this very object; when it is gone the memory is free
        others = [(kept, borrower) for kept, borrower in self._lent if kept is not memory]
        self._lent = [(memory, weakref.ref(lent)), *others][:PREFETCH]
        return lent


class TrainingLoader:
    """An endless iterable of batches; each iterator starts at the first sample of ``order``."""

    def __init__(
        self, samples: TrainingSamples, order: GlobalOrder, workers: int, failures: Failures | None = None
    ) -> None:
        self.samples, self.order, self.workers, self.failures = samples, order, workers, failures
        self.pin_memory = False  # for a GPU: this process copies each batch to memory from which it moves by itself
        clips, settings = samples.clips, samples.settings
        self.form = BatchForm(
            clips.shard_set.spec, clips.max_text, settings.tasks, settings.caption_weight, samples.width,
            samples.waveform,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        """Batches; the training process records damaged clips when it takes their batch.

        Raises:
            MirasolError: too many clips are damaged, one is and cannot be replaced, or the system killed a process
                that reads ahead.
        """
        source, workers = _Batches(self.samples, self.form, self.workers), self.workers
        batches = DataLoader(
            source, batch_size=None, sampler=self.order, collate_fn=_unchanged, num_workers=workers,
            multiprocessing_context=START if workers else None, prefetch_factor=PREFETCH if workers else None,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # else each iterator draws from the generator of the training
        )  # fmt: skip
        for batch, damage in self._alive(iter(batches), source):
            if self.failures is not None:
                self.failures.record(damage, len(self.samples.clips.shard_set))
            yield batch

    def _alive(self, batches: Iterator[Any], source: _Batches) -> Iterator[Any]:
        """``batches``, or an error that names the clips that a killed process was reading."""
        try:
            yield from batches
        except (RuntimeError, OSError, EOFError) as error:
            killed = source.killed()
            if not killed:
                raise
            clips = ", ".join(f"sample {number} (clip {self.samples.key(number)})" for number in killed)
            raise MirasolError(
                f"a loader process was killed while reading {clips}: most likely the system ran out of memory. Set "
                "training.workers lower and run the same command again: the training resumes from its last checkpoint"
            ) from error


def make_loader(
    shard_set: ShardDataset,
    tokenizer: Tokenizer,
    settings: SampleSettings,
    order: GlobalOrder,
    *,
    workers: int = 0,
    waveform: bool = False,
    failures: Failures | None = None,
) -> TrainingLoader:
    """Endless training batches of the clips that have an example of ``settings.tasks``.

    Args:
        workers: processes that read ahead; 0 reads in this one, which is fast enough for cached clips.
        waveform: batches carry sound of which the model makes log-mel, see :func:`log_mel_of`.
        failures: records damaged clips, which are then replaced; without it the first of them is an error.

    Raises:
        MirasolError: no clip has such an example, ``settings.mix`` names an unknown data set, a text is longer than
            the text cache, or too many clips are damaged.
    """
    captions = settings.caption_weight > 0 and "caption" not in settings.tasks
    clips = Clips(shard_set, tokenizer, Wanted(settings.tasks, captions, settings.mix), failures=failures)
    samples = TrainingSamples(clips, settings, waveform=waveform, replace=failures is not None)
    return TrainingLoader(samples, order, workers, failures)


def eval_loader(
    shard_set: ShardDataset,
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str],
    batch_size: int,
    condition: Condition = Condition.unchanged,
    seed: int = 0,
    without: Collection[str] = (),
) -> DataLoader[Any]:
    """All clips with an example of ``tasks``, each once, in a fixed order, with all their texts of these tasks.

    Clips with a key in ``without`` are left out. ``seed`` decides which sound a swapped clip gets. Q is the largest
    number of texts in the batch.

    Raises:
        MirasolError: no clip has such an example, a text is longer than the text cache, or fewer than two
            clips have a sound to swap.
        ValueError: ``condition`` changes whole batches (``shuffled``).
    """
    clips = Clips(shard_set, tokenizer, Wanted(tasks), without=without)
    order = [list(range(low, min(low + batch_size, len(clips)))) for low in range(0, len(clips), batch_size)]
    together = functools.partial(collate, form=BatchForm(shard_set.spec, tokenizer.max_text, clips.tasks))
    samples = EvaluationSamples(clips, condition, seed)
    return DataLoader(samples, batch_sampler=order, collate_fn=together, generator=torch.Generator())


def collate(samples: list[Sample], form: BatchForm, video: NDArray[np.uint8] | None = None) -> Batch:
    """A batch of ``samples``; absent sound and picture become silence and black. Without any text Q is 0.

    Its frames lie in ``video``, where those of some samples may lie already, each in its place.
    """
    size, spec, width = len(samples), form.spec, form.width
    if video is None:
        video = np.empty((size, *video_shape(spec)), np.uint8)
    audio = np.empty((0 if form.waveform else size, *audio_shape(spec)), np.float32)
    for b, sample in enumerate(samples):
        if sample.clip.video is None:
            video[b] = black_frame(spec.size)
        elif not np.may_share_memory(sample.clip.video, video):
            video[b] = sample.clip.video
        if not form.waveform:
            audio[b] = SILENCE if sample.clip.audio is None else sample.clip.audio
    most = max(len(s.texts) for s in samples)
    width = most and (width or most)
    tokens, mask, ids = stack_texts([s.texts for s in samples], form.length, width)
    weight = np.zeros((size, width), np.float32)
    for b, sample in enumerate(samples):
        weight[b, : len(sample.texts)] = [1.0 if t.task in form.tasks else form.caption_weight for t in sample.texts]
        if sample.shares:
            weight[b, : len(sample.texts)] *= sample.shares
    masked = [s.masked for s in samples if s.masked is not None]  # all, or none
    texts, answers = torch.from_numpy(tokens), torch.from_numpy(mask)
    return Batch(
        video=torch.from_numpy(video),
        audio=torch.from_numpy(audio),
        video_present=torch.from_numpy(np.stack([s.clip.video_present for s in samples])),
        audio_present=torch.from_numpy(np.stack([s.clip.audio_present for s in samples])),
        tokens=texts,
        answer_mask=answers,
        text_weight=torch.from_numpy(weight),
        keys=[s.key for s in samples],
        example_ids=ids,
        waveform=_waveforms(samples, spec) if form.waveform else None,
        targets=text_targets(texts, answers),
        masked=torch.from_numpy(np.stack(masked)) if masked else None,
    )


def _waveforms(samples: list[Sample], spec: ClipSpec) -> Waveform:
    """The sound of ``samples``; a clip with fewer waveforms than others is padded with silence of share 0."""
    given = [sample.clip.waveform for sample in samples]
    count = max((len(sound.shares) for sound in given if sound is not None), default=1)
    chunks = np.zeros((len(given), count, *chunks_shape(spec)), np.int16)
    lengths = np.zeros(chunks.shape[:3], np.int64)
    masks = np.zeros((len(given), count, len(NOTHING)), np.int64)
    shares = np.zeros((len(given), count), np.float32)
    shares[:, 0] = 1.0
    for b, sound in enumerate(given):
        if sound is not None:
            n = len(sound.shares)
            chunks[b, :n], lengths[b, :n] = sound.chunks, sound.samples
            masks[b, :n], shares[b, :n] = sound.masks, sound.shares
    return Waveform(*map(torch.from_numpy, (chunks, lengths, masks, shares)))


def log_mel_of(spec: ClipSpec) -> LogMel:
    """The module that makes the features of :mod:`mirasol.media.log_mel` of a batch's waveforms."""
    window, hop = window_and_hop(spec)
    scale = LogMelSpec(window, hop, spec.audio_columns, FLOOR, MEAN_DB, SCALE_DB, relative=spec.level == "relative")
    return LogMel(torch.from_numpy(mel_filters(spec.mels, spec.sample_rate)), scale)


def _unchanged(batch: Any) -> Any:
    return batch
