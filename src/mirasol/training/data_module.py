"""The data of a phase: training batches in their global order, and a fixed part of the val split."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytorch_lightning as pl
import torch

from mirasol.core.errors import MirasolError
from mirasol.data.loading.augment import Augmentation
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.facts import Strings, Table, examples_of
from mirasol.data.loading.failures import Damage, Failures
from mirasol.data.loading.loader import BatchForm, GlobalOrder, TrainingLoader, collate, log_mel_of, make_loader
from mirasol.data.loading.mixing import Mixture
from mirasol.data.loading.samples import Clips, EvaluationSamples, Sample, SampleSettings, Wanted
from mirasol.data.shards.format import DamagedClip, read_index
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch, text_targets
from mirasol.model.logmel import LogMel
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import UNLABELLED, PhaseConfig, PhaseRun, parse_mix
from mirasol.training.phases import MODALITIES


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of ``cuts`` micro-batches, which say what no clip of the data set has."""

    loader: TrainingLoader
    cuts: int
    modalities: frozenset[str]
    texts: bool = False  # whether each batch has a text, as processes need that run the text model together

    def __iter__(self) -> Iterator[list[Batch]]:
        batches = (with_text(batch) if self.texts else batch for batch in self.loader)
        video, audio = (kind in self.modalities for kind in MODALITIES)
        while True:
            yield [dataclasses.replace(next(batches), has_video=video, has_audio=audio) for _ in range(self.cuts)]


def with_text(batch: Batch) -> Batch:
    """``batch``, or if none of its clips has a text, with one of weight 0 each: loss and gradient of it are 0."""
    clips, texts, length = batch.tokens.shape
    if texts:
        return batch
    tokens, mask = torch.zeros(clips, 1, length, dtype=torch.int64), torch.zeros(clips, 1, length, dtype=torch.bool)
    mask[:, :, 1] = True
    return dataclasses.replace(
        batch, tokens=tokens, answer_mask=mask, text_weight=torch.zeros(clips, 1), targets=text_targets(tokens, mask)
    )


class PhaseDataModule(pl.LightningDataModule):
    """The data of one phase, from training sample ``start`` on.

    Raises:
        MirasolError: the shards or the tokenizer are missing, the shards were made with another ``run.clip``, the
            phase's view does not fit them, or its ``epochs`` make no more steps than its warm-up.
    """

    def __init__(self, run: PhaseRun, start: int = 0) -> None:
        super().__init__()
        paths, config = run.paths, run.config
        self.start = start
        self.num_queries = 0  # m of the model, whose features are masked in training
        self.tokenizer = Tokenizer.load(paths.tokenizer)
        self.tokenizer.max_text = config.max_text or self.tokenizer.max_text
        opened = functools.partial(ShardDataset, paths.shards, cache=paths.cache, any_size=True, view=config.view)
        optional = UNLABELLED in run.tasks and not read_index(paths.shards)["splits"].get("val")
        self.train, self.val = opened("train"), None if optional else opened("val")
        if self.train.stored != run.clip:
            raise MirasolError(
                f"{paths.shards}: made with other settings of `clip` than these ({self.train.stored}, now {run.clip}): "
                "make the shards again with `dvc repro shards`"
            )
        self.settings = SampleSettings(
            run.tasks, run.training.seed, config.texts_per_clip, config.caption_weight, config.mute,
            config.blank, Augmentation(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Augmentation)}),
            parse_mix(config.mix), config.feature_mask,
        )  # fmt: skip
        self._val: tuple[EvaluationSamples, Failures] | None = None
        self._clip_failures: Failures | None = None
        self.run = dataclasses.replace(run, config=self._settled(run.name, config))

    def _settled(self, name: str, config: PhaseConfig) -> PhaseConfig:
        """``config`` without a text loss if there is no text, and with the steps of its epochs.

        Each step takes ``batch_size`` clips, the last may begin another epoch.
        """
        if not self.has_texts:
            config = dataclasses.replace(config, text_weight=0.0)
        if not config.epochs:
            return config
        steps = max(1, -(-config.epochs * self.clips // config.batch_size))
        if config.warmup >= steps and self.clips:
            raise MirasolError(
                f"{name}.warmup is {config.warmup}, expected less than {steps}: the steps of {name}.epochs = "
                f"{config.epochs} over {self.clips:,} clips in batches of {config.batch_size}"
            )
        return dataclasses.replace(config, steps=steps)

    @functools.cached_property
    def clips(self) -> int:
        """Clips of the train split with an example of the phase's tasks; under ``mix`` once for each of its sets."""
        facts, mix = self.train.facts, self.settings.mix
        rows, owners = examples_of(facts, self.settings.tasks)
        if not mix:
            return len(np.unique(owners))
        sets, names = facts.arrays["sets"][rows], facts.notes["sets"]
        return sum(len(np.unique(owners[sets == number])) for number, name in enumerate(names) if name in mix)

    @functools.cached_property
    def modalities(self) -> frozenset[str]:
        """Those of ``MODALITIES`` that any clip of the train split has: a fact of the data set, equal in all processes.

        A branch without data does not run. Batch by batch the processes would disagree, and wait for each other.
        """
        has = self.train.facts.arrays["has"]
        return frozenset(kind for column, kind in enumerate(MODALITIES) if has[:, column].any())

    @property
    def has_examples(self) -> bool:
        """Whether the train split has any example of the phase's tasks."""
        return len(examples_of(self.train.facts, self.settings.tasks)[0]) > 0

    @functools.cached_property
    def has_texts(self) -> bool:
        """Whether the phase learns from texts: any of its training clips has one, or it is to answer questions.

        A fact of the data set, equal in all processes.
        """
        if UNLABELLED not in self.settings.tasks or "qa" in self.settings.tasks:
            return True
        return len(examples_of(self.train.facts, set(self.settings.tasks) - {UNLABELLED})[0]) > 0

    def digests(self) -> dict[str, str]:
        """For each split the hash of all facts of its clips, and how many of them are damaged."""
        splits = {"train": self.train} | ({"val": self.val} if self.val else {})
        found = {name: split.facts.notes for name, split in splits.items()}
        return {name: f"{notes['digest'][:12]}, {len(notes['damaged'])} damaged" for name, notes in found.items()}

    def sets(self) -> dict[str, int]:
        """Training samples of the whole run from each data set of ``mix``; empty without one."""
        mix = self.settings.mix
        return Mixture(mix, self.settings.seed).counts(self.run.samples) if mix else {}

    def front_end(self, device: torch.device) -> LogMel | None:
        """The module that makes log-mel within a step on ``device``; ``None`` where the loader does (decision 0038)."""
        return log_mel_of(self.train.spec) if takes_waveforms(device, self.train.spec) else None

    def train_dataloader(self) -> Steps:
        """The steps of this process: its rank is known once Lightning has started."""
        assert self.trainer is not None
        device, world = self.trainer.strategy.root_device, self.trainer.world_size
        waveform = takes_waveforms(device, self.train.spec)
        loader = self.train_loader(self.trainer.global_rank, world, waveform=waveform)
        loader.pin_memory = device.type == "cuda"
        return Steps(loader, self.cuts(world), self.modalities, texts=self.has_texts and world > 1)

    def cuts(self, world: int) -> int:
        """Micro-batches of a step of one of ``world`` processes."""
        share, micro = self.run.config.batch_size // world, self.run.training.micro_batch
        return share // micro if 0 < micro < share else 1

    def train_loader(self, rank: int = 0, world: int = 1, *, waveform: bool = False) -> TrainingLoader:
        """Endless micro-batches for process ``rank`` of ``world``.

        With ``waveform`` they carry sound of which the model makes log-mel: the same to 1e-5, with the same draws.

        Raises:
            MirasolError: no example to learn from, an unknown data set in ``mix``, a text longer than the text cache,
                or more damaged clips than ``training.max_damaged``.
        """
        order = GlobalOrder(self.run.config.batch_size // world, self.start, rank, world, self.cuts(world))
        settings = dataclasses.replace(self.settings, num_queries=self.num_queries)
        return make_loader(
            self.train, self.tokenizer, settings, order, workers=self.run.training.workers, waveform=waveform,
            failures=self._failures("train", rank, world),
        )  # fmt: skip

    def _failures(self, split: str, rank: int, world: int) -> Failures:
        share = self.run.training.max_damaged
        return Failures(self.run.paths.runs, share, start=self.start, rank=rank, world=world, split=split)

    @property
    def scored(self) -> tuple[str, ...]:
        """The tasks that evaluations score: the phase's own with texts, then those of the phases before."""
        return tuple(task for task in dict.fromkeys((*self.run.tasks, *self.run.before)) if task != UNLABELLED)

    def families(self) -> tuple[dict[str, str], dict[str, str]]:
        """The family of each example id of the val split, of the phase's own tasks and of those before.

        That is the question's family; its task where it has none.

        Raises:
            MirasolError: the val split has no example of the phase's own tasks.
        """
        own, earlier = dict[str, str](), dict[str, str]()
        facts = self.val.facts if self.val else Table({}, {})
        ids = Strings(facts, "ids")
        for row in examples_of(facts, self.scored)[0].tolist() if self.val else ():
            task, family = (facts.notes[kind][facts.arrays[kind][row]] for kind in ("tasks", "families"))
            (own if task in self.run.tasks else earlier)[ids[row]] = family or task
        if not own:
            raise MirasolError(
                f"{self.train.folder}: the split val has no example of task {' or '.join(self.run.tasks)} to score "
                "while training on that task: give some rows of it in the manifest the split val"
            )
        return own, earlier

    def val_batches(self, rank: int, world: int) -> Iterator[Batch]:
        """The part of the val split that process ``rank`` of ``world`` scores.

        At most ``config.val_clips`` clips of each task of `scored`, spread evenly over those that have it, so that
        every phase scores a task on the same clips. This process reads them, with features on any device: the first
        evaluation decodes them, later ones find them in the cache. Damaged clips are recorded and left out, and so are
        texts of earlier tasks that are longer than this phase's: the number of texts shows that a score covers fewer.

        Raises:
            MirasolError: more clips are damaged than ``training.max_damaged``.
        """
        assert self.val is not None
        if self._val is None:
            failures = self._failures("val", rank, world)
            wanted = Wanted(self.scored, optional=set(self.scored) - set(self.run.tasks))
            clips = Clips(self.val, self.tokenizer, wanted, failures=failures)
            for task, count in clips.too_long.items() if rank == 0 else ():
                name, limit = self.run.name, self.tokenizer.max_text
                print(
                    f"[{name}] {count} val text(s) of {task} have more than max_text {limit} tokens and are left out: "
                    f"raise {name}.max_text to score them",
                    file=sys.stderr,
                )
            self._val = EvaluationSamples(clips), failures
        samples, failures = self._val
        tasks = self._chosen(samples.clips)

        def read(number: int) -> Sample:
            sample = samples[number]
            return dataclasses.replace(sample, texts=[text for text in sample.texts if text.task in tasks[number]])

        form = BatchForm(self.val.spec, self.tokenizer.max_text, self.scored)
        yield from self._batches(sorted(tasks), read, form, failures, (rank, world))

    def val_clips(self, rank: int, world: int) -> Iterator[Batch]:
        """At most ``config.val_clips`` clips of the val split, spread evenly, without texts; none without that split.

        Raises:
            MirasolError: more clips are damaged than ``training.max_damaged``.
        """
        if (val := self.val) is None:
            return
        count = min(self.run.config.val_clips, len(val))
        chosen = np.linspace(0, len(val) - 1, count).round().astype(int).tolist()
        self._clip_failures = failures = self._clip_failures or self._failures("val", rank, world)
        form = BatchForm(val.spec, self.tokenizer.max_text, ())
        video, audio = (kind in self.modalities for kind in MODALITIES)

        def read(number: int) -> Sample:
            return Sample(val.keys[number], val.arrays(number), [])

        for batch in self._batches(chosen, read, form, failures, (rank, world)):
            yield dataclasses.replace(batch, has_video=video, has_audio=audio)

    def _batches(
        self,
        numbers: list[int],
        read: Callable[[int], Sample],
        form: BatchForm,
        failures: Failures,
        place: tuple[int, int],
    ) -> Iterator[Batch]:
        """The batches of process ``place``, rank of world, of the samples ``numbers``; none of damaged clips."""
        rank, world = place
        size = self.run.training.micro_batch or max(1, self.run.config.batch_size // world)
        for low in range(rank * size, len(numbers), size * world):
            intact: list[Sample] = []
            for number in numbers[low : low + size]:
                try:
                    intact.append(read(number))
                except DamagedClip as error:
                    failures.record([Damage(None, error.key, error.why)], len(self.val or ()))
            if intact:
                yield collate(intact, form)

    def _chosen(self, clips: Clips) -> dict[int, set[str]]:
        """The numbers of the clips to score, and the tasks of each."""
        found: dict[int, set[str]] = {}
        for task in self.scored:
            members = clips.texts.having(task).tolist()
            count = min(self.run.config.val_clips, len(members))
            for place in np.linspace(0, len(members) - 1, count).round().astype(int).tolist():
                found.setdefault(members[place], set()).add(task)
        return found


def takes_waveforms(device: torch.device, clip: ClipSpec) -> bool:
    """Whether to train on waveforms: a GPU has time for log-mel, a CPU would make it again in every epoch.

    Under ``clip.sampling: spread`` chunks of each clip have their own length, which makes no batch.
    """
    return device.type == "cuda" and clip.sampling == "rate"
