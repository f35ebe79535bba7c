"""Shards to batches: a global order that depends on seed and epoch alone, resumable at any sample.

Training sample number g (counted over the whole training, over all ranks) is clip ``position`` of epoch
``epoch``, where ``epoch, position = divmod(g, clips)``. Which clip that is, which of its texts are asked
and what is muted follow from the seed and g. So the state of the loader is one number, samples consumed,
whatever the number of ranks and workers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mirasol.core.errors import MirasolError
from mirasol.data import augment
from mirasol.data.cache import Decoded, audio_shape, video_shape
from mirasol.data.features import SILENCE, black_frame
from mirasol.data.manifest import Example, example_of
from mirasol.data.shardset import ShardSet
from mirasol.data.spec import ClipSpec
from mirasol.data.texts import Text, encode_texts, stack_texts
from mirasol.data.tokenizer import Tokenizer
from mirasol.model.batch import Batch

CONDITIONS = ("none", "muted", "blanked", "swapped")
PREFETCH = 4  # batches that each worker prepares ahead


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip with the texts that are asked of it."""

    key: str
    clip: Decoded
    texts: list[Text]


class Clips:
    """The clips of a split that have a text of the wanted tasks, with these texts encoded."""

    def __init__(self, shard_set: ShardSet, tokenizer: Tokenizer, tasks: Sequence[str], captions: bool) -> None:
        """``captions`` adds a clip's captions to texts of other tasks; alone they do not bring a clip in.

        Raises:
            MirasolError: no clip has a text of these tasks, or a text is longer than the text cache.
        """
        self.shard_set = shard_set
        self.tasks = tuple(tasks)
        self.max_text = tokenizer.max_text
        wanted = {*tasks, "caption"} if captions else set(tasks)
        examples: list[Example] = []
        counts: list[int] = []
        self.numbers: list[int] = []  # in the shard set
        for number in range(len(shard_set)):
            rows = [r for r in shard_set.meta(number)["examples"] if r["task"] in wanted]
            if any(r["task"] in tasks for r in rows):
                self.numbers.append(number)
                counts.append(len(rows))
                examples += [example_of(row) for row in rows]
        if not self.numbers:
            raise MirasolError(
                f"{shard_set.folder}: no clip of the split {shard_set.split} has an example of task "
                f"{' or '.join(tasks)}: give the manifest rows of that task"
            )
        texts = iter(encode_texts(tokenizer, examples))
        self.texts = [[next(texts) for _ in range(count)] for count in counts]

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, index: int, clip: Decoded, texts: list[Text]) -> Sample:
        return Sample(self.shard_set.keys[self.numbers[index]], clip, texts)

    def arrays(self, index: int) -> Decoded:
        return self.shard_set.arrays(self.numbers[index])


class TrainingSamples(Dataset[Sample]):
    """Training sample g of the endless global order."""

    def __init__(self, clips: Clips, texts_per_clip: int, seed: int, mute: float, blank: float) -> None:
        self.clips = clips
        self.texts_per_clip = texts_per_clip
        self.seed, self.mute, self.blank = seed, mute, blank
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def index(self, sample: int) -> int:
        """Which of the clips sample number ``sample`` is."""
        epoch, position = divmod(sample, len(self.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, augment.permutation(self.seed, epoch, len(self.clips))
        return int(self._order[position])

    def __getitem__(self, sample: int) -> Sample:
        index = self.index(sample)
        draws = augment.sample_draws(self.seed, sample)
        texts = augment.draw_texts(self.clips.texts[index], self.texts_per_clip, self.clips.tasks, draws)
        clip = self.clips.arrays(index)
        missing = augment.draw_missing(self.mute, self.blank, draws)
        if clip.video is not None and clip.audio is not None:  # a clip keeps at least one of the two
            clip = (
                augment.muted(clip) if missing == "muted" else augment.blanked(clip) if missing == "blanked" else clip
            )
        return self.clips.sample(index, clip, texts)


class EvaluationSamples(Dataset[Sample]):
    """Every clip once, in the order of the shards, with all its texts, under one condition."""

    def __init__(self, clips: Clips, condition: str, seed: int) -> None:
        if condition not in CONDITIONS:
            raise ValueError(f"condition {condition!r} is not one of {CONDITIONS}")
        self.clips, self.condition = clips, condition
        self.donors: dict[int, int] = {}
        if condition == "swapped":
            heard = [i for i, number in enumerate(clips.numbers) if clips.shard_set.meta(number)["has_audio"]]
            if len(heard) < 2:
                raise MirasolError(
                    f"{clips.shard_set.folder}: {len(heard)} clip(s) of the split {clips.shard_set.split} have sound; "
                    "to give clips another clip's sound takes two"
                )
            groups = [clips.shard_set.meta(clips.numbers[i])["examples"][0]["group"] for i in heard]
            self.donors = augment.derangement(seed, heard, groups)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips.arrays(index)
        if self.condition == "muted":
            clip = augment.muted(clip)
        elif self.condition == "blanked":
            clip = augment.blanked(clip)
        elif index in self.donors:
            clip = augment.with_sound_of(clip, self.clips.arrays(self.donors[index]))
        return self.clips.sample(index, clip, self.clips.texts[index])


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


class TrainingLoader:
    """An endless iterable of batches. Iterating anew begins at ``start_sample`` again."""

    def __init__(self, samples: TrainingSamples, order: GlobalOrder, caption_weight: float, workers: int) -> None:
        self.samples, self.order, self.workers = samples, order, workers
        spec, length = samples.clips.shard_set.spec, samples.clips.max_text
        self._collate = functools.partial(
            collate, spec=spec, length=length, width=samples.texts_per_clip,
            tasks=samples.clips.tasks, caption_weight=caption_weight,
        )  # fmt: skip

    @property
    def clips(self) -> int:
        """Clips in an epoch."""
        return len(self.samples.clips)

    def __iter__(self) -> Iterator[Batch]:
        return iter(_torch_loader(self.samples, self.order, self._collate, self.workers))


def make_loader(
    shard_set: ShardSet,
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
        rank, world: this process among those that train together.

    Raises:
        MirasolError: no clip has such an example, or a text is longer than the text cache.
    """
    captions = caption_weight > 0 and "caption" not in tasks
    clips = Clips(shard_set, tokenizer, tasks, captions)
    samples = TrainingSamples(clips, texts_per_clip, seed, mute, blank)
    return TrainingLoader(samples, GlobalOrder(batch_size, start_sample, rank, world), caption_weight, workers)


def eval_loader(
    shard_set: ShardSet,
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str],
    batch_size: int,
    condition: str = "none",
    seed: int = 0,
    workers: int = 0,
) -> DataLoader[Any]:
    """All clips with an example of ``tasks``, each once, in a fixed order, with all their texts of these tasks.

    ``condition`` is ``none``; ``muted``, silence in place of sound; ``blanked``, black in place of the
    picture; or ``swapped``, the sound of another clip, whose choice follows from ``seed``. Q is the largest
    number of texts in the batch.

    Raises:
        MirasolError: no clip has such an example, a text is longer than the text cache, or fewer than two
            clips have a sound to swap.
        ValueError: no such condition.
    """
    clips = Clips(shard_set, tokenizer, tasks, captions=False)
    samples = EvaluationSamples(clips, condition, seed)
    order = [list(range(low, min(low + batch_size, len(clips)))) for low in range(0, len(clips), batch_size)]
    together = functools.partial(
        collate, spec=shard_set.spec, length=tokenizer.max_text, width=None, tasks=clips.tasks, caption_weight=1.0
    )
    return _torch_loader(samples, order, together, workers)


def collate(
    samples: list[Sample],
    *,
    spec: ClipSpec,
    length: int,
    width: int | None,
    tasks: Sequence[str],
    caption_weight: float,
) -> Batch:
    """A batch of ``samples``; Q = ``width``, or the largest number of texts; L = ``length``."""
    size = len(samples)
    video = np.empty((size, *video_shape(spec)), np.uint8)
    audio = np.empty((size, *audio_shape(spec)), np.float32)
    for b, sample in enumerate(samples):
        video[b] = black_frame(spec.size) if sample.clip.video is None else sample.clip.video
        audio[b] = SILENCE if sample.clip.audio is None else sample.clip.audio
    width = width or max(len(s.texts) for s in samples)
    tokens, mask, ids = stack_texts([s.texts for s in samples], length, width)
    weight = np.zeros((size, width), np.float32)
    for b, sample in enumerate(samples):
        weight[b, : len(sample.texts)] = [1.0 if t.task in tasks else caption_weight for t in sample.texts]
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
    )


def _torch_loader(
    samples: Dataset[Sample], order: Iterable[list[int]], together: Callable[[list[Sample]], Batch], workers: int
) -> DataLoader[Any]:
    return DataLoader(
        samples,
        batch_sampler=order,
        collate_fn=together,
        num_workers=workers,
        # A forked process inherits the locks of threads that it does not have: FFmpeg's and torch's deadlock.
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=PREFETCH if workers else None,
        generator=torch.Generator(),  # else each iterator takes a number from torch's own, that of the training
    )
