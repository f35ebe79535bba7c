"""Shards to batches: a global order that depends on seed and epoch alone, resumable at any sample.

Training sample number g (counted over the whole training, over all ranks) is clip ``position`` of epoch
``epoch``, where ``epoch, position = divmod(g, clips)``. Which clip that is, which of its texts are asked, how it
is augmented and what is muted follow from the seed and g, and so does the clip that takes the place of a damaged
one. So the state of the loader is one number, samples consumed, whatever the number of ranks and workers.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mirasol.core.errors import MirasolError
from mirasol.data.loading.augment import OFF, Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import audio_shape, video_shape
from mirasol.data.loading.failures import Damage, Failures
from mirasol.data.loading.samples import Clips, EvaluationSamples, Sample, TrainingSamples
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
from mirasol.model.batch import Batch, Waveform
from mirasol.model.logmel import LogMel
from mirasol.tokenizer import Tokenizer

REAPED = 3.0  # seconds until the end of a killed process is known
PREFETCH = 4  # batches that each worker prepares ahead
# A forked process inherits the locks of threads that it does not have: FFmpeg's and torch's deadlock.
START = "forkserver"


@dataclasses.dataclass(frozen=True)
class GlobalOrder:
    """Batches of sample numbers for one rank: together the ranks take ``batch_size * world`` in a row."""

    batch_size: int
    start: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[list[int]]:
        step = self.batch_size * self.world
        first = self.start + self.rank
        while True:
            yield list(range(first, first + step, self.world))
            first += step


class Samples(Protocol):
    """Training samples by number: of one set, or of several (:mod:`mirasol.data.loading.mixing`)."""

    spec: ClipSpec
    max_text: int
    tasks: tuple[str, ...]

    @property
    def waveform(self) -> bool:
        """Whether clips come with their sound in place of features of it."""

    @property
    def width(self) -> int:
        """Q of a batch."""

    @property
    def total(self) -> int:
        """Clips of the split."""

    def read(self, sample: int, into: NDArray[np.uint8] | None = None) -> Sample:
        """Sample number ``sample``; frames that need no more work than decoding lie in ``into``."""

    def key(self, sample: int) -> str:
        """Key of the clip that sample number ``sample`` is made of, unless it is damaged."""


class _Batches(Dataset[tuple[Batch, list[Damage]]]):
    """Batches by their sample numbers: clips are decoded where the batch will have them."""

    def __init__(self, samples: Samples, together: Callable[..., Batch], workers: int) -> None:
        self.samples, self.together = samples, together
        self._lent: list[tuple[NDArray[np.uint8], weakref.ref[Any]]] = []
        # What each process reads: its number in the system and the sample's, for the case that it is killed.
        self._at_work = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __getitem__(self, numbers: list[int]) -> tuple[Batch, list[Damage]]:
        video = self._memory((len(numbers), *video_shape(self.samples.spec)))
        found = [self._read(number, row) for number, row in zip(numbers, video, strict=True)]
        return self.together(found, video=video), [damage for sample in found for damage in sample.damage]

    def _read(self, number: int, row: NDArray[np.uint8]) -> Sample:
        worker = get_worker_info()
        if worker is not None:
            self._at_work[worker.id] = torch.tensor([os.getpid(), number])
        return self.samples.read(number, row)

    def killed(self) -> list[int]:
        """The samples that processes were at which have ended since."""
        working = set(self._at_work[:, 0].tolist())
        ours = [process.sentinel for process in multiprocessing.active_children() if process.pid in working]
        connection.wait(ours, REAPED)  # the connection to a killed process breaks before its end is known
        alive = {process.pid for process in multiprocessing.active_children()}
        return [number for pid, number in self._at_work.tolist() if pid and pid not in alive]

    def _memory(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Room for a batch's frames: that of a batch which nobody holds any more, or else new.

        The system clears new memory first, which for large clips takes a tenth of the time of decoding them.
        """
        free = [memory for memory, borrower in self._lent if borrower() is None and memory.shape == shape]
        memory = free[0] if free else np.empty(shape, np.uint8)
        lent = memory.view()  # the batch's tensor keeps this very object; when it is gone the memory is free
        others = [(kept, borrower) for kept, borrower in self._lent if kept is not memory]
        self._lent = [(memory, weakref.ref(lent)), *others][:PREFETCH]
        return lent


class TrainingLoader:
    """An endless iterable of batches. Iterating anew begins at the first sample of ``order`` again."""

    def __init__(
        self,
        samples: Samples,
        order: GlobalOrder,
        caption_weight: float,
        workers: int,
        failures: Failures | None = None,
    ) -> None:
        self.samples, self.order, self.workers = samples, order, workers
        self.caption_weight, self.failures = caption_weight, failures

    def __iter__(self) -> Iterator[Batch]:
        """Batches; what was damaged is told in the process that trains, when its batch is handed over.

        Raises:
            MirasolError: too many clips are damaged, one is and nothing may take its place, or a process that reads
                ahead was killed.
        """
        samples = self.samples
        together = functools.partial(
            collate, spec=samples.spec, length=samples.max_text, width=samples.width,
            tasks=samples.tasks, caption_weight=self.caption_weight, waveform=samples.waveform,
        )  # fmt: skip
        made = _Batches(samples, together, self.workers)
        batches = DataLoader(
            made, batch_size=None, sampler=self.order, collate_fn=_as_it_is, **_processes(self.workers)
        )  # fmt: skip
        for batch, damage in self._alive(iter(batches), made):
            if self.failures is not None:
                self.failures.record(damage, samples.total)
            yield batch

    def _alive(self, batches: Iterator[Any], made: _Batches) -> Iterator[Any]:
        """``batches``, or an error that names what a process was reading when the system killed it."""
        try:
            yield from batches
        except (RuntimeError, OSError, EOFError) as error:
            killed = made.killed()
            if not killed:
                raise
            clips = ", ".join(f"sample {number} (clip {self.samples.key(number)})" for number in killed)
            raise MirasolError(
                f"a loader process was killed while reading {clips}: most likely the system ran out of memory. Set "
                "training.workers lower, and go on with the same command: the training resumes from its last checkpoint"
            ) from error


def make_loader(
    shard_set: ShardDataset,
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str],
    batch_size: int,
    texts_per_clip: int,
    caption_weight: float,
    seed: int,
    start_sample: int = 0,
    workers: int = 0,
    mute: float = 0.0,
    blank: float = 0.0,
    augmentation: Augmentation = OFF,
    waveform: bool = False,
    failures: Failures | None = None,
    rank: int = 0,
    world: int = 1,
) -> TrainingLoader:
    """Endless training batches of the clips that have an example of ``tasks``.

    Args:
        tasks: what is learnt, of ``caption``, ``audio_class`` and ``qa``.
        batch_size: clips per batch and rank.
        texts_per_clip: Q, texts drawn per clip; a clip with fewer is padded with weight 0.
        caption_weight: weight of a caption beside other tasks; 0 leaves captions out. Where ``tasks``
            itself names ``caption``, captions weigh 1 like all else.
        start_sample: samples consumed before, over all ranks: where an interrupted training goes on.
        workers: processes that read ahead; 0 reads in this one, which is fast enough for cached clips.
        mute: share of the clips with sound and picture whose sound becomes silence.
        blank: share of them whose picture becomes black.
        augmentation: how clips are changed; mixup doubles Q.
        waveform: batches bring sound of which the model makes log-mel, see :func:`log_mel_of`.
        failures: damaged clips are told to it and replaced; without it the first of them is an error.
        rank, world: this process among those that train together.

    Raises:
        MirasolError: no clip has such an example, a text is longer than the text cache, or too many clips are damaged.
    """
    captions = caption_weight > 0 and "caption" not in tasks
    clips = Clips(shard_set, tokenizer, tasks, captions, failures, waveform=waveform)
    samples = TrainingSamples(clips, texts_per_clip, seed, mute, blank, augmentation, replace=failures is not None)
    order = GlobalOrder(batch_size, start_sample, rank, world)
    return TrainingLoader(samples, order, caption_weight, workers, failures)


def eval_loader(
    shard_set: ShardDataset,
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str],
    batch_size: int,
    condition: str = "none",
    seed: int = 0,
    workers: int = 0,
    without: Collection[str] = (),
) -> DataLoader[Any]:
    """All clips with an example of ``tasks``, each once, in a fixed order, with all their texts of these tasks;
    but not those whose keys are in ``without``.

    ``condition`` is ``none``; ``muted``, silence in place of sound; ``blanked``, black in place of the
    picture; or ``swapped``, the sound of another clip, whose choice follows from ``seed``. Q is the largest
    number of texts in the batch.

    Raises:
        MirasolError: no clip has such an example, a text is longer than the text cache, or fewer than two
            clips have a sound to swap.
        ValueError: no such condition.
    """
    clips = Clips(shard_set, tokenizer, tasks, captions=False, without=without)
    samples = EvaluationSamples(clips, condition, seed)
    order = [list(range(low, min(low + batch_size, len(clips)))) for low in range(0, len(clips), batch_size)]
    together = functools.partial(
        collate, spec=shard_set.spec, length=tokenizer.max_text, width=None, tasks=clips.tasks, caption_weight=1.0
    )
    return DataLoader(samples, batch_sampler=order, collate_fn=together, **_processes(workers))


def collate(
    samples: list[Sample],
    *,
    spec: ClipSpec,
    length: int,
    width: int | None,
    tasks: Sequence[str],
    caption_weight: float,
    waveform: bool = False,
    video: NDArray[np.uint8] | None = None,
) -> Batch:
    """A batch of ``samples``; Q = ``width``, or the largest number of texts; L = ``length``.

    Its frames are put into ``video``, where those of some samples may lie already, each in its own place.
    """
    size = len(samples)
    if video is None:
        video = np.empty((size, *video_shape(spec)), np.uint8)
    audio = np.empty((0 if waveform else size, *audio_shape(spec)), np.float32)
    for b, sample in enumerate(samples):
        if sample.clip.video is None:
            video[b] = black_frame(spec.size)
        elif not np.may_share_memory(sample.clip.video, video):
            video[b] = sample.clip.video
        if not waveform:
            audio[b] = SILENCE if sample.clip.audio is None else sample.clip.audio
    width = width or max(len(s.texts) for s in samples)
    tokens, mask, ids = stack_texts([s.texts for s in samples], length, width)
    weight = np.zeros((size, width), np.float32)
    for b, sample in enumerate(samples):
        weight[b, : len(sample.texts)] = [1.0 if t.task in tasks else caption_weight for t in sample.texts]
        if sample.shares:
            weight[b, : len(sample.texts)] *= sample.shares
    return Batch(
        video=torch.from_numpy(video),
        audio=torch.from_numpy(audio),
        video_present=torch.from_numpy(np.stack([s.clip.video_present for s in samples])),
        audio_present=torch.from_numpy(np.stack([s.clip.audio_present for s in samples])),
        tokens=torch.from_numpy(tokens),
        answer_mask=torch.from_numpy(mask),
        text_weight=torch.from_numpy(weight),
        keys=[s.key for s in samples],
        example_ids=ids,
        waveform=_waveforms(samples, spec) if waveform else None,
    )


def _waveforms(samples: list[Sample], spec: ClipSpec) -> Waveform:
    """The sound of ``samples``; silence, with no share or no sound of its own, where a clip has fewer than others."""
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
    """What makes log-mel of the waveforms of a batch: the features of :mod:`mirasol.media.log_mel`."""
    window, hop = window_and_hop(spec)
    return LogMel(
        torch.from_numpy(mel_filters(spec.mels, spec.sample_rate)), window=window, hop=hop,
        columns=spec.audio_columns, floor=FLOOR, mean_db=MEAN_DB, scale_db=SCALE_DB, relative=spec.level == "relative",
    )  # fmt: skip


def _as_it_is(batch: Any) -> Any:
    return batch


def _processes(workers: int) -> dict[str, Any]:
    """How a DataLoader reads ahead."""
    return {
        "num_workers": workers,
        "multiprocessing_context": START if workers else None,
        "prefetch_factor": PREFETCH if workers else None,
        "generator": torch.Generator(),  # else each iterator takes a number from torch's own, that of the training
    }
