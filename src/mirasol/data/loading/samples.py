"""Samples: a clip with the texts asked of it, by number, for training and for evaluation.

The seed and the number alone decide a training sample (:mod:`mirasol.data.loading.augment` draws), and the clip that
replaces a damaged one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mirasol.core.errors import MirasolError
from mirasol.data.conditions import Condition
from mirasol.data.loading import augment
from mirasol.data.loading.augment import OFF, Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.data.loading.facts import examples_of
from mirasol.data.loading.failures import Damage, Failures
from mirasol.data.loading.mixing import ClipOrder, Mixture
from mirasol.data.loading.texts import ClipTexts, Text, too_long
from mirasol.data.manifest import UNLABELLED
from mirasol.data.shards.format import DamagedClip
from mirasol.tokenizer import Tokenizer

TRIES = 32  # clips that may replace a damaged one, before the run fails


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip with the texts that are asked of it."""

    key: str
    clip: Decoded
    texts: list[Text]
    shares: list[float] = dataclasses.field(default_factory=list)  # of each text in the loss; empty: all of 1
    damage: list[Damage] = dataclasses.field(default_factory=list)  # clips that should have been here
    masked: NDArray[np.bool_] | None = None  # [T, m], features of x that the latent model does not see (P 3.6)


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """How training samples are made: the keys of a phase of the same names, with its tasks and the seed."""

    tasks: tuple[str, ...]  # of `caption`, `audio_class`, `qa` and `unlabelled`: what is learnt
    seed: int
    texts_per_clip: int  # Q, drawn per clip; mixup doubles it
    caption_weight: float  # of a caption next to other tasks, 0: none; where `tasks` names captions, they weigh 1
    mute: float = 0.0  # share of the clips with sound and picture whose sound becomes silence
    blank: float = 0.0  # share of them whose picture becomes black
    augmentation: Augmentation = OFF
    mix: Mapping[str, int] = dataclasses.field(default_factory=dict)  # weights of data sets; empty: all clips alike
    feature_mask: float = 0.0  # share of the features of x that are masked
    num_queries: int = 0  # m, features of a chunk; 0: none is masked


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The texts to take of a split."""

    tasks: Sequence[str]  # a clip with an example of one of them is taken
    captions: bool = False  # its captions come along with texts of other tasks
    sets: Collection[str] = ()  # data sets; a clip of several counts once for each, with its texts; empty: all clips
    optional: Collection[str] = ()  # of ``tasks``: texts that are longer than the text cache are left out and counted


class Clips:
    """The clips of a split that have an example of the wanted tasks, with its texts encoded; none of `unlabelled`.

    ``too_long`` counts the texts that are left out, by task.

    Args:
        failures: records clips with unreadable texts, which are left out; ``None``: the first is an error.
        without: keys of clips to leave out.

    Raises:
        MirasolError: no clip has an example of the wanted tasks, or none of one of the sets; a text that is not
            optional is longer than the text cache, or too many clips are damaged.
    """

    def __init__(
        self,
        shard_set: ShardDataset,
        tokenizer: Tokenizer,
        texts: Wanted,
        *,
        failures: Failures | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.shard_set, self.tasks, self.max_text = shard_set, tuple(texts.tasks), tokenizer.max_text
        facts, sets = shard_set.facts, texts.sets
        self._leave_damaged(failures, without)
        rows, owners = examples_of(facts, {*self.tasks, "caption"} if texts.captions else self.tasks)
        if without:
            left = [number for number, key in enumerate(shard_set.keys) if key in without]
            rows, owners = (values[~np.isin(owners, left)] for values in (rows, owners))
        kinds, known = facts.arrays["tasks"], np.array(facts.notes["sets"], str)
        names = facts.arrays["sets"][rows] if sets else np.zeros(len(rows), np.int32)
        if sets:  # a clip of several counts once for each, in the order of its first example
            clips = _numbered(owners * max(1, len(known)) + names)
        else:
            clips = np.cumsum(np.diff(owners, prepend=-1) != 0) - 1
        order = np.argsort(clips, kind="stable")
        rows, clips = rows[order], clips[order]
        first = np.flatnonzero(np.diff(clips, prepend=-1))
        learnt = [number for number, name in enumerate(facts.notes["tasks"]) if name in self.tasks]
        taken = np.bincount(clips[np.isin(kinds[rows], learnt)], minlength=len(first)) > 0
        numbers, named = owners[order][first], known[names[order][first]] if sets else np.full(len(first), "")
        self._check(sets, {*named[taken].tolist()})
        if sets:
            taken &= np.isin(named, [*sets])
        self.numbers: NDArray[np.int64] = numbers[taken]
        self.sets: NDArray[np.str_] = named[taken]
        unlabelled = [number for number, name in enumerate(facts.notes["tasks"]) if name == UNLABELLED]
        texted = taken[clips] & ~np.isin(kinds[rows], unlabelled)
        rows, clips = rows[texted], (np.cumsum(taken) - 1)[clips[texted]]
        tokens = shard_set.tokens(tokenizer)
        long = too_long(
            shard_set, ClipTexts(shard_set, tokens, rows, _bounds(clips, len(self))), self.max_text, texts.optional
        )
        self.too_long = Counter(facts.notes["tasks"][kind] for kind in kinds[rows[long]].tolist())
        self.texts = ClipTexts(shard_set, tokens, rows[~long], _bounds(clips[~long], len(self)))

    def _leave_damaged(self, failures: Failures | None, without: Collection[str]) -> None:
        """Record the clips with unreadable texts, or raise the first one."""
        for number, why in self.shard_set.facts.notes["damaged"]:
            if (key := self.shard_set.keys[number]) not in without:
                if failures is None:
                    self.shard_set.meta(number)  # raises it
                else:
                    failures.record([Damage(None, key, why)], len(self.shard_set))

    def _check(self, sets: Collection[str], known: set[str]) -> None:
        where = f"{self.shard_set.folder}: no clip of the split {self.shard_set.split}"
        tasks = f"has an example of task {' or '.join(self.tasks)}"
        if not known:
            raise MirasolError(f"{where} {tasks}: give the manifest rows of that task")
        if unknown := sorted(set(sets) - known):
            there = ", ".join(sorted(known - {""})) or "none, no row names its data set"
            lacking = f"{where} and the data set {', '.join(unknown)} {tasks}"
            raise MirasolError(f"{lacking}; data sets that have: {there}; change `mix` of the phase")

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, index: int) -> str:
        return self.shard_set.keys[int(self.numbers[index])]

    def arrays(
        self, index: int, *, waveform: bool = False, into: NDArray[np.uint8] | None = None, later: int = 0
    ) -> Decoded:
        """As :meth:`ShardDataset.arrays`."""
        return self.shard_set.arrays(int(self.numbers[index]), waveform=waveform, into=into, later=later)


def _numbered(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each value among the different ones, in the order of their first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[inverse]


def _bounds(owners: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where the rows of each of ``count`` owners begin and end, of rows sorted by owner."""
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)


class TrainingSamples(Dataset[Sample]):
    """Training sample g of the endless global order.

    Args:
        waveform: clips bring their sound instead of features.
        replace: another clip replaces a damaged one, which is an error otherwise.
    """

    def __init__(self, clips: Clips, settings: SampleSettings, waveform: bool = False, replace: bool = False) -> None:
        self.clips, self.settings, self.waveform, self.replace = clips, settings, waveform, replace
        self.order = ClipOrder(clips.sets, Mixture(settings.mix or {"": 1}, settings.seed))

    @property
    def width(self) -> int:
        """Q of a batch: mixed clips bring the texts of both."""
        return self.settings.texts_per_clip * (2 if self.settings.augmentation.mixup else 1)

    def key(self, sample: int) -> str:
        """Key of the clip that sample number ``sample`` is made of, unless it is damaged."""
        return self.clips.key(self.order.index(sample))

    def __getitem__(self, sample: int) -> Sample:
        return self.read(sample)

    def read(self, sample: int, into: NDArray[np.uint8] | None = None) -> Sample:
        """Sample number ``sample``; frames that need no more work than decoding lie in ``into``."""
        settings = self.settings
        draws = augment.draws_of(settings.seed, augment.SAMPLE, sample)
        how, numbers = settings.augmentation, augment.UNCHANGED
        if how != OFF:
            numbers = augment.draws_of(settings.seed, augment.CHANGE, sample).random(augment.NUMBERS)
        later = augment.draw_start(how, numbers)
        index, clip, damage = self._read(self.order.index(sample), sample, into, later=later)
        texts = self._texts(index, draws)
        if how != OFF:
            clip = augment.augmented(clip, how, numbers)
        found = Sample(self.clips.key(index), clip, texts, damage=damage)
        if settings.augmentation.mixup and len(self.order.peers(sample)) > 1:
            found = self._mixed(found, index, sample)
        if settings.feature_mask and settings.num_queries:
            hidden = augment.draws_of(settings.seed, augment.HIDE, sample)
            shape = (len(clip.video_present), settings.num_queries)
            found = dataclasses.replace(found, masked=hidden.random(shape) < settings.feature_mask)
        missing, clip = augment.draw_missing(settings.mute, settings.blank, draws), found.clip
        if clip.video is None or (clip.audio is None and clip.waveform is None):  # its one modality stays
            return found
        return dataclasses.replace(found, clip=augment.under(missing, clip))

    def _texts(self, index: int, draws: np.random.Generator) -> list[Text]:
        return augment.draw_texts(self.clips.texts[index], self.settings.texts_per_clip, self.clips.tasks, draws)

    def partner(self, index: int, sample: int, draws: np.random.Generator) -> int:
        """The clip that mixup mixes with clip ``index`` of the same set."""
        peers = self.order.peers(sample)
        place = int(np.searchsorted(peers, index))
        return int(peers[(place + 1 + int(draws.integers(len(peers) - 1))) % len(peers)])

    def _mixed(self, found: Sample, index: int, sample: int) -> Sample:
        """Mixup: two clips in one, each text in the loss by the share of its clip.

        That is the mixture of the two losses itself, for the loss is a weighted sum over texts.
        """
        how = self.settings.augmentation
        draws = augment.draws_of(self.settings.seed, augment.MIX, sample)
        share = augment.draw_share(how.mixup, draws)
        partner = self.partner(index, sample, draws)
        numbers = draws.random(augment.NUMBERS)
        partner, other, damage = self._read(partner, sample, later=augment.draw_start(how, numbers))
        other = augment.augmented(other, how, numbers)
        damage = [*found.damage, *damage]
        if not augment.mixable(found.clip, other):
            return dataclasses.replace(found, damage=damage)
        texts = self._texts(partner, draws)
        shares = [share] * len(found.texts) + [1.0 - share] * len(texts)
        clip = augment.mixed(found.clip, other, share)
        return Sample(found.key, clip, [*found.texts, *texts], shares, damage)

    def _read(
        self, index: int, sample: int, into: NDArray[np.uint8] | None = None, *, later: int = 0
    ) -> tuple[int, Decoded, list[Damage]]:
        """Clip ``index``, or the first intact one of those that seed and ``sample`` choose; and the damaged ones.

        Raises:
            DamagedClip: it is damaged and may not be replaced, or all replacements are damaged too.
        """
        draws: np.random.Generator | None = None
        errors: list[DamagedClip] = []
        while True:
            try:
                clip = self.clips.arrays(index, waveform=self.waveform, into=into, later=later)
            except DamagedClip as error:
                errors.append(error)
                if not self.replace or len(errors) > TRIES:
                    raise
                draws = draws or augment.draws_of(self.settings.seed, augment.REPLACE, sample)
                peers = self.order.peers(sample)
                index = int(peers[int(draws.integers(len(peers)))])
            else:
                key = self.clips.key(index)
                return index, clip, [Damage(sample, error.key, error.why, key) for error in errors]


class EvaluationSamples(Dataset[Sample]):
    """Every clip once, in the order of the shards, with all its texts, under one condition.

    Raises:
        MirasolError: to swap sounds takes two clips with sound.
        ValueError: ``shuffled``, which changes batches.
    """

    def __init__(self, clips: Clips, condition: Condition = Condition.unchanged, seed: int = 0) -> None:
        if condition == Condition.shuffled:
            raise ValueError(f"condition {condition!r}: shuffle the chunks of a batch instead")
        self.clips, self.condition = clips, Condition(condition)
        self.donors: dict[int, int] = {}
        if condition == Condition.swapped:
            audible = [i for i, number in enumerate(clips.numbers) if clips.shard_set.meta(int(number))["has_audio"]]
            if len(audible) < 2:
                raise MirasolError(
                    f"{clips.shard_set.folder}: {len(audible)} clip(s) of the split {clips.shard_set.split} have "
                    "sound; to give clips another clip's sound takes two"
                )
            groups = [clips.shard_set.meta(int(clips.numbers[i]))["examples"][0]["group"] for i in audible]
            self.donors = augment.derangement(seed, audible, groups)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = augment.under(self.condition, self.clips.arrays(index))
        if index in self.donors:
            clip = augment.with_sound_of(clip, self.clips.arrays(self.donors[index]))
        return Sample(self.clips.key(index), clip, self.clips.texts[index])
