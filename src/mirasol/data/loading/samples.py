"""Samples: a clip with the texts asked of it, by number, for training and for evaluation.

The seed and the number alone decide a training sample (:mod:`mirasol.data.loading.augment` draws), and the clip that
replaces a damaged one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mirasol.core.errors import MirasolError
from mirasol.data.loading import augment
from mirasol.data.loading.augment import OFF, Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.failures import Damage, DamagedClip, Failures
from mirasol.data.loading.texts import Text, encode_texts
from mirasol.data.manifest import Example, example_of
from mirasol.tokenizer import Tokenizer

CONDITIONS = ("none", "muted", "blanked", "swapped")
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
        shard_set: ShardDataset,
        tokenizer: Tokenizer,
        tasks: Sequence[str],
        captions: bool,
        failures: Failures | None = None,
        without: Collection[str] = (),
        waveform: bool = False,
    ) -> None:
        """``captions`` adds a clip's captions to texts of other tasks; alone they do not bring a clip in. ``without``
        are keys of clips that are left out.

        A clip whose texts cannot be read is left out and told to ``failures``, or is an error without it. With
        ``waveform`` clips come with their sound in place of features of it.

        Raises:
            MirasolError: no clip has a text of these tasks, or a text is longer than the text cache, or too many
                clips are damaged.
        """
        self.shard_set, self.waveform = shard_set, waveform
        self.tasks = tuple(tasks)
        self.max_text = tokenizer.max_text
        wanted = {*tasks, "caption"} if captions else set(tasks)
        examples: list[Example] = []
        counts: list[int] = []
        self.numbers: list[int] = []  # in the shard set
        for number in range(len(shard_set)):
            if shard_set.keys[number] in without:
                continue
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

    def arrays(self, index: int, into: NDArray[np.uint8] | None = None) -> Decoded:
        return self.shard_set.arrays(self.numbers[index], waveform=self.waveform, into=into)


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
        self.spec, self.max_text, self.tasks = clips.shard_set.spec, clips.max_text, clips.tasks
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    @property
    def width(self) -> int:
        """Q of a batch: mixed clips bring the texts of both."""
        return self.texts_per_clip * (2 if self.augmentation.mixup else 1)

    @property
    def waveform(self) -> bool:
        """Whether clips come with their sound in place of features of it."""
        return self.clips.waveform

    @property
    def total(self) -> int:
        """Clips of the split, of which a share may be damaged."""
        return len(self.clips.shard_set)

    def index(self, sample: int) -> int:
        """Which of the clips sample number ``sample`` is, unless it is damaged."""
        epoch, position = divmod(sample, len(self.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, augment.permutation(self.seed, epoch, len(self.clips))
        return int(self._order[position])

    def key(self, sample: int) -> str:
        """Key of the clip that sample number ``sample`` is made of, unless it is damaged."""
        return self.clips.key(self.index(sample))

    def __getitem__(self, sample: int) -> Sample:
        return self.read(sample)

    def read(self, sample: int, into: NDArray[np.uint8] | None = None) -> Sample:
        """Sample number ``sample``; frames that need no more work than decoding lie in ``into``."""
        draws = augment.sample_draws(self.seed, sample)
        index, clip, damage = self._read(self.index(sample), sample, into)
        texts = self._texts(index, draws)
        if self.augmentation != OFF:
            chances = augment.other_draws(self.seed, augment.CHANGE, sample).random(augment.CHANCES)
            clip = augment.changed(clip, self.augmentation, chances)
        found = Sample(self.clips.key(index), clip, texts, damage=damage)
        if self.augmentation.mixup and len(self.clips) > 1:
            found = self._mixed(found, index, sample)
        missing = augment.draw_missing(self.mute, self.blank, draws)
        clip = found.clip
        heard = clip.audio is not None or clip.waveform is not None
        if clip.video is not None and heard and missing != "none":  # it keeps at least one of the two
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

    def _read(
        self, index: int, sample: int, into: NDArray[np.uint8] | None = None
    ) -> tuple[int, Decoded, list[Damage]]:
        """Clip ``index``, or the first sound one of those that follow from seed and ``sample``; and what was damaged.

        Raises:
            DamagedClip: it is damaged and nothing may take its place, or what should is damaged too.
        """
        draws: np.random.Generator | None = None
        errors: list[DamagedClip] = []
        while True:
            try:
                clip = self.clips.arrays(index, into)
            except DamagedClip as error:
                errors.append(error)
                if not self.replace or len(errors) > TRIES:
                    raise
                draws = draws or augment.other_draws(self.seed, augment.REPLACE, sample)
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
