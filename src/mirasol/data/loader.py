"""Shards to batches: a global order that depends on seed and epoch alone, resumable at any sample.

Training sample number g (counted over the whole training, over all ranks) is clip ``position`` of epoch
``epoch``, where ``epoch, position = divmod(g, clips)``. Which clip that is, which of its texts are asked, how it
is augmented and what is muted follow from the seed and g, and so does the clip that takes the place of a damaged
one. So the state of the loader is one number, samples consumed, whatever the number of ranks and workers.
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
from mirasol.data.augment import OFF, Augmentation
from mirasol.data.cache import Decoded, audio_shape, video_shape
from mirasol.data.failures import Damage, DamagedClip, Failures
from mirasol.data.features import SILENCE, black_frame
from mirasol.data.manifest import Example, example_of
from mirasol.data.shardset import ShardSet
from mirasol.data.spec import ClipSpec
from mirasol.data.texts import Text, encode_texts, stack_texts
from mirasol.data.tokenizer import Tokenizer
from mirasol.model.batch import Batch

CONDITIONS = ("none", "muted", "blanked", "swapped")
PREFETCH = 4  # batches that each worker prepares ahead
TRIES = 32  # clips that may take the place of a damaged one, before the run fails


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip with the texts that are asked of it."""

    key: str
    clip: Decoded
    texts: list[Text]
    shares: list[float] = dataclasses.field(default_factory=list)  # of each text in the loss; empty: all of 1
    damage: list[Damage] = dataclasses.field(default_factory=list)  # clips that should have been here


class Clips:
    """The clips of a split that have a text of the wanted tasks, with these texts encoded."""

    def __init__(
        self,
        shard_set: ShardSet,
        tokenizer: Tokenizer,
        tasks: Sequence[str],
        captions: bool,
        failures: Failures | None = None,
    ) -> None:
        """``captions`` adds a clip's captions to texts of other tasks; alone they do not bring a clip in.

        A clip whose texts cannot be read is left out and told to ``failures``, or is an error without it.

        Raises:
            MirasolError: no clip has a text of these tasks, or a text is longer than the text cache, or too many
                clips are damaged.
        """
        self.shard_set = shard_set
        self.tasks = tuple(tasks)
        self.max_text = tokenizer.max_text
        wanted = {*tasks, "caption"} if captions else set(tasks)
        examples: list[Example] = []
        counts: list[int] = []
        self.numbers: list[int] = []  # in the shard set
        for number in range(len(shard_set)):
            try:
                rows = [r for r in shard_set.meta(number)["examples"] if r["task"] in wanted]
            except DamagedClip as error:
                if failures is None:
                    raise
                failures.record([Damage(None, error.key, error.why)], len(shard_set))
                continue
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

    def key(self, index: int) -> str:
        return self.shard_set.keys[self.numbers[index]]

    def arrays(self, index: int) -> Decoded:
        return self.shard_set.arrays(self.numbers[index])


class TrainingSamples(Dataset[Sample]):
    """Training sample g of the endless global order."""

    def __init__(
        self,
        clips: Clips,
        texts_per_clip: int,
        seed: int,
        mute: float,
        blank: float,
        augmentation: Augmentation = OFF,
        replace: bool = False,
    ) -> None:
        """``replace``: another clip takes the place of a damaged one, which is an error otherwise."""
        self.clips = clips
        self.texts_per_clip = texts_per_clip
        self.seed, self.mute, self.blank = seed, mute, blank
        self.augmentation, self.replace = augmentation, replace
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    @property
    def width(self) -> int:
        """Q of a batch: mixed clips bring the texts of both."""
        return self.texts_per_clip * (2 if self.augmentation.mixup else 1)

    def index(self, sample: int) -> int:
        """Which of the clips sample number ``sample`` is, unless it is damaged."""
        epoch, position = divmod(sample, len(self.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, augment.permutation(self.seed, epoch, len(self.clips))
        return int(self._order[position])

    def __getitem__(self, sample: int) -> Sample:
        draws = augment.sample_draws(self.seed, sample)
        index, clip, damage = self._read(self.index(sample), sample)
        texts = self._texts(index, draws)
        if self.augmentation != OFF:
            chances = augment.other_draws(self.seed, augment.CHANGE, sample).random(augment.CHANCES)
            clip = augment.changed(clip, self.augmentation, chances)
        found = Sample(self.clips.key(index), clip, texts, damage=damage)
        if self.augmentation.mixup and len(self.clips) > 1:
            found = self._mixed(found, index, sample)
        missing = augment.draw_missing(self.mute, self.blank, draws)
        clip = found.clip
        if clip.video is not None and clip.audio is not None and missing != "none":  # it keeps at least one of the two
            clip = augment.muted(clip) if missing == "muted" else augment.blanked(clip)
        return dataclasses.replace(found, clip=clip)

    def _texts(self, index: int, draws: np.random.Generator) -> list[Text]:
        return augment.draw_texts(self.clips.texts[index], self.texts_per_clip, self.clips.tasks, draws)

    def _mixed(self, found: Sample, index: int, sample: int) -> Sample:
        """Mixup: two clips in one, each text in the loss by the share of its clip.

        That is the mixture of the two losses itself, for the loss is a weighted sum over texts.
        """
        draws = augment.other_draws(self.seed, augment.MIX, sample)
        share = augment.draw_share(self.augmentation.mixup, draws)
        partner = (index + 1 + int(draws.integers(len(self.clips) - 1))) % len(self.clips)
        chances = draws.random(augment.CHANCES)
        partner, other, damage = self._read(partner, sample)
        other = augment.changed(other, self.augmentation, chances)
        damage = [*found.damage, *damage]
        if not augment.mixable(found.clip, other):
            return dataclasses.replace(found, damage=damage)
        texts = self._texts(partner, draws)
        shares = [share] * len(found.texts) + [1.0 - share] * len(texts)
        clip = augment.mixed(found.clip, other, share)
        return Sample(found.key, clip, [*found.texts, *texts], shares, damage)

    def _read(self, index: int, sample: int) -> tuple[int, Decoded, list[Damage]]:
        """Clip ``index``, or the first sound one of those that follow from seed and ``sample``; and what was damaged.

        Raises:
            DamagedClip: it is damaged and nothing may take its place, or what should is damaged too.
        """
        draws = augment.other_draws(self.seed, augment.REPLACE, sample)
        errors: list[DamagedClip] = []
        while True:
            try:
                clip = self.clips.arrays(index)
            except DamagedClip as error:
                errors.append(error)
                if not self.replace or len(errors) > TRIES:
                    raise
                index = int(draws.integers(len(self.clips)))
            else:
                key = self.clips.key(index)
                return index, clip, [Damage(sample, error.key, error.why, key) for error in errors]


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
        return Sample(self.clips.key(index), clip, self.clips.texts[index])


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

    def __init__(
        self,
        samples: TrainingSamples,
        order: GlobalOrder,
        caption_weight: float,
        workers: int,
        failures: Failures | None = None,
    ) -> None:
        self.samples, self.order, self.workers = samples, order, workers
        self.failures = failures
        spec, length = samples.clips.shard_set.spec, samples.clips.max_text
        together = functools.partial(
            collate, spec=spec, length=length, width=samples.width,
            tasks=samples.clips.tasks, caption_weight=caption_weight,
        )  # fmt: skip
        self._collate = functools.partial(_with_damage, together=together)

    @property
    def clips(self) -> int:
        """Clips in an epoch."""
        return len(self.samples.clips)

    def __iter__(self) -> Iterator[Batch]:
        """Batches; what was damaged is told in the process that trains, when its batch is handed over.

        Raises:
            MirasolError: too many clips are damaged, or one is and nothing may take its place.
        """
        for batch, damage in _torch_loader(self.samples, self.order, self._collate, self.workers):
            if self.failures is not None:
                self.failures.record(damage, len(self.samples.clips.shard_set))
            yield batch


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
    augmentation: Augmentation = OFF,
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
        failures: damaged clips are told to it and replaced; without it the first of them is an error.
        rank, world: this process among those that train together.

    Raises:
        MirasolError: no clip has such an example, a text is longer than the text cache, or too many clips are damaged.
    """
    captions = caption_weight > 0 and "caption" not in tasks
    clips = Clips(shard_set, tokenizer, tasks, captions, failures)
    samples = TrainingSamples(clips, texts_per_clip, seed, mute, blank, augmentation, replace=failures is not None)
    order = GlobalOrder(batch_size, start_sample, rank, world)
    return TrainingLoader(samples, order, caption_weight, workers, failures)


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
    )


def _with_damage(samples: list[Sample], *, together: Callable[[list[Sample]], Batch]) -> tuple[Batch, list[Damage]]:
    return together(samples), [damage for sample in samples for damage in sample.damage]


def _torch_loader(
    samples: Dataset[Sample], order: Iterable[list[int]], together: Callable[[list[Sample]], Any], workers: int
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
