"""From weights to predictions and scores: the model answers every question of a split, and the answers are scored."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from mirasol.core.errors import MirasolError, listing
from mirasol.core.progress import Progress
from mirasol.data.conditions import Condition
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.data.loading.view import view_of
from mirasol.data.manifest import Clip, Example, clips_of, read_manifest
from mirasol.data.shards.format import DamagedClip, read_index
from mirasol.evaluation.generate import Answers, answer, answer_all, score_answers, score_options
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.metrics import Constant, read_families, score
from mirasol.tasks.scoring.predictions import SHOWN, Prediction, write_predictions
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import TrainingConfig
from mirasol.training.weights import load_model

TASK = "qa"  # questions; captions and names of sounds only train the model
PREDICTIONS = "predictions.jsonl"
KEPT = 10  # best scores of a closed set that a prediction keeps
Missing = list[dict[str, Any]]  # clips without an answer: clip, media, questions, reason
Found = TypeVar("Found")


@dataclass(frozen=True)
class Evaluator:
    """Trained weights and the shards that hold the clips; the model is loaded on first use."""

    weights: Path  # folder of a trained model
    shards: Path  # folder with shards.json
    tokenizer: Path  # tokenizer.json of the same training
    spec: EvaluateSpec
    training: TrainingConfig  # threads, accelerator, and max_damaged: the share of a split that may be damaged
    cache: Path | None = None  # folder for decoded clips, which three of the passes read; None decodes every time

    @functools.cached_property
    def words(self) -> Tokenizer:
        """The tokenizer."""
        return Tokenizer.load(self.tokenizer)

    @functools.cached_property
    def device(self) -> torch.device:
        """A GPU if available, unless ``training.accelerator`` is ``cpu``."""
        return torch.device("cuda" if self.training.accelerator != "cpu" and torch.cuda.is_available() else "cpu")

    @functools.cached_property
    def model(self) -> Mirasol:
        """The model on its device, in evaluation mode.

        Raises:
            MirasolError: the weights are missing or damaged, or the tokenizer belongs to another training.
        """
        model = load_model(self.weights).to(self.device).eval()
        if self.words.vocabulary != model.config.vocabulary:
            raise MirasolError(
                f"{self.tokenizer} has {self.words.vocabulary} pieces, the model in {self.weights} "
                f"{model.config.vocabulary}: they are not of one training; run `dvc repro finetune`, or name the "
                "weights of the tokenizer's training with --weights"
            )
        self.words.max_text = model.config.max_text  # a phase may have another than the tokenizer's
        return model

    def evaluate(self, data: Path, out: Path) -> dict[str, Any]:
        """Answer every question of ``spec.split`` under every condition, and score the answers.

        Args:
            data: folder with ``manifest.jsonl``, which lists the questions, and optionally ``families.json``.
            out: folder for ``predictions.jsonl``, one line per question in the order of the manifest.

        Returns:
            The report of :func:`mirasol.tasks.scoring.metrics.score` with ``split`` and ``missing``: clips that are
            damaged or not in the shards, with the reason. Their questions count as wrong. Equal inputs give equal
            bytes.

        Raises:
            MirasolError: the split has no question, an answer is longer than ``spec.max_answer``, the shards hold
                nothing of the split or come from another manifest, more clips are damaged than
                ``training.max_damaged``, or a file is missing.
        """
        spec, examples = self.spec, read_manifest(data / "manifest.jsonl")
        clips = clips_of(e for e in examples if e.split == spec.split and e.task == TASK)
        if not clips:
            counts = {s: sum(e.split == s and e.task == TASK for e in examples) for s in ("train", "val", "test")}
            raise MirasolError(
                f"{data / 'manifest.jsonl'}: split {spec.split!r} has no example of task {TASK!r}, so there is nothing "
                f"to evaluate (train has {counts['train']}, val {counts['val']}, test {counts['test']}): give some "
                "groups that split, or choose another with evaluate.split"
            )
        check_lengths(self.words, clips, spec.max_answer)

        def answers_of(batch: Batch, swapped: Batch | None) -> Answers:
            return answer_all(self.model, batch, swapped, self.words, spec)

        answers, missing = self._ask(clips, answers_of, swap=True)
        rows = [_row(e, clip, answers.get(e.id, {})) for clip in clips for e in clip.examples]
        write_predictions(out / PREDICTIONS, rows)
        constant = Constant.learn((e.prompt, e.answers) for e in examples if e.split == "train" and e.task == TASK)
        report = score(rows, read_families(data), constant, resamples=spec.resamples, seed=spec.seed)
        return report | {"split": spec.split, "missing": missing}

    def predict(
        self, asked: Sequence[Example], closed: str = "", train: Sequence[Example] = ()
    ) -> tuple[list[Prediction], Missing]:
        """Answer the questions of a benchmark about unchanged clips.

        Args:
            asked: questions of one split.
            closed: ``options`` chooses each question's best option, ``classes`` ranks all answers of ``asked`` and
                ``train`` next to the generated answer, an empty text generates only.

        Returns:
            One prediction per question, in their order, ``None`` if the clip is not in the shards; and those clips.

        Raises:
            MirasolError: an answer is longer than ``spec.max_answer``, an option or class does not fit behind its
                question, or as :meth:`evaluate`.
        """
        clips = clips_of(asked)
        if closed != "options":
            check_lengths(self.words, clips, self.spec.max_answer)
        classes = sorted({e.answers[0] for e in (*asked, *train)}) if closed == "classes" else []
        if closed:
            check_closed(self.words, asked, classes, self.model.config.max_text)
        by_id = {e.id: e for e in asked}

        def predictions_of(batch: Batch, _: Batch | None) -> dict[str, Prediction]:
            with torch.inference_mode():
                encoded = self.model.encode(batch)
            shared = self.model, batch, self.words
            texts: list[list[str]] = []
            if closed != "options":  # the best option is the answer
                texts = answer(*shared, self.spec.max_answer, self.spec.beam, encoded)
            lists: list[list[Sequence[str]]] = []
            scores: Any = None
            if closed == "classes":
                lists = [[classes for _ in clip] for clip in batch.example_ids]
                scores = score_answers(*shared, classes, encoded)
            elif closed:
                names = (name for ids in batch.example_ids for name in ids)
                some = next((by_id[n].options for n in names if n in by_id), ("",))  # scored for padding
                lists = [[by_id[n].options if n in by_id else some for n in ids] for ids in batch.example_ids]
                scores = score_options(*shared, lists, encoded)
            found = {}
            for b, ids in enumerate(batch.example_ids):
                for q, name in enumerate(ids):
                    if name:  # no padding
                        ranked = _best(lists[b][q], scores[b][q]) if closed else {}
                        found[name] = Prediction(name, texts[b][q] if texts else next(iter(ranked)), ranked)
            return found

        found, missing = self._ask(clips, predictions_of)
        return [found.get(e.id, Prediction(e.id, None)) for e in asked], missing

    def _ask(
        self, clips: Sequence[Clip], answers_of: Callable[[Batch, Batch | None], dict[str, Found]], swap: bool = False
    ) -> tuple[dict[str, Found], Missing]:
        """``answers_of`` each batch, by question; ``swap`` adds the same clips with another clip's sound."""
        view, split = view_of(self.model.config), clips[0].examples[0].split
        shard_set = ShardDataset(self.shards, split, cache=self.cache, any_size=True, view=view)
        damaged = find_damaged(shard_set, self.training.max_damaged)
        found: dict[str, Found] = {}
        with (
            torch_threads(self.training.threads),
            Progress("evaluate", len(shard_set) - len(damaged), "clips") as progress,
        ):
            for batch, swapped in self._batches(shard_set, damaged, swap):
                found |= answers_of(batch.to(self.device), swapped and swapped.to(self.device))
                progress.advance(len(batch.keys))
        check_agreement(self.shards, clips, found)
        return found, missing_clips(clips, found, self.shards, damaged)

    def _batches(
        self, shard_set: ShardDataset, damaged: Collection[str], swap: bool
    ) -> Iterator[tuple[Batch, Batch | None]]:
        """The unchanged clips, each batch with the same clips under another clip's sound, or ``None``."""
        load = functools.partial(
            eval_loader, shard_set, self.words, tasks=(TASK,), batch_size=self.spec.batch_size, seed=self.spec.seed,
            without=damaged,
        )  # fmt: skip
        sound = [number for number, key in enumerate(shard_set.keys) if key not in damaged]
        if not swap or sum(shard_set.meta(number)["has_audio"] for number in sound) < 2:  # no other sound
            return ((batch, None) for batch in load())
        return zip(load(), load(condition=Condition.swapped), strict=True)


def _row(example: Example, clip: Clip, given: Mapping[str, str]) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    return {
        "example_id": example.id,
        "clip": clip.key,
        "group": example.group,
        "family": example.family,
        "prompt": example.prompt,
        "answers": list(example.answers),
        "predicted": {condition: given.get(condition) for condition in Condition},
    }


def _best(texts: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    pairs = zip(texts, map(float, scores), strict=True)
    best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:KEPT]
    return {text: round(value, 6) for text, value in best}


def check_lengths(words: Tokenizer, clips: Sequence[Clip], max_answer: int) -> None:
    """Raise if a question has no answer of at most ``max_answer`` tokens: it would always count as wrong."""
    tokens = {a: words.answer_length(a) for clip in clips for e in clip.examples for a in e.answers}
    shortest = {e.id: min(e.answers, key=lambda a: tokens[a]) for clip in clips for e in clip.examples}
    cut = {example: answer for example, answer in shortest.items() if tokens[answer] > max_answer}
    if cut:
        needed = max(tokens[answer] for answer in cut.values())
        title = (
            f"{len(cut)} of {len(shortest)} questions have no answer that evaluate.max_answer = {max_answer} tokens "
            f"can say whole: set it to at least {needed} (nothing is trained again for that)"
        )
        raise MirasolError(listing(title, [f"{e}: {a!r} takes {tokens[a]} tokens" for e, a in cut.items()], 5))


def check_closed(words: Tokenizer, asked: Sequence[Example], classes: Sequence[str], limit: int) -> None:
    """Raise unless the text cache of ``limit`` tokens holds each question with any of ``classes``, or without classes
    with any of its options. The check runs before hours of answering."""
    count = functools.cache(words.answer_length)
    prompt = functools.cache(lambda text: len(words.text_ids(text, None)))
    of_classes = max(classes, key=count, default="")
    needs = {e.id: (prompt(e.prompt), of_classes or max(e.options, key=count, default="")) for e in asked}
    long = {name: (before, text) for name, (before, text) in needs.items() if before + count(text) > limit}
    if long:
        longest = max(before + count(text) for before, text in long.values())
        title = (
            f"{len(long)} of {len(needs)} questions do not fit the text cache of {limit} tokens, finetune.max_text or "
            f"else tokenizer.max_text, with an answer to choose from, which takes {longest}: use weights trained with "
            "that many"
        )
        lines = [f"{name}: {text!r} is {count(text)} tokens behind {before}" for name, (before, text) in long.items()]
        raise MirasolError(listing(title, lines, SHOWN))


def find_damaged(shard_set: ShardDataset, share: float) -> dict[str, str]:
    """Reason by key of each unreadable clip, also printed.

    Raises:
        MirasolError: more than ``share`` of the clips are damaged, or all.
    """
    found: dict[str, str] = {}
    for number in range(len(shard_set)):
        try:
            shard_set.verify(number)
        except DamagedClip as error:
            found[error.key] = f"damaged: {error.why}"
    lines = [f"{key}: {why}" for key, why in found.items()]
    if len(found) > share * len(shard_set) or len(found) == len(shard_set):
        title = (
            f"{len(found)} of {len(shard_set)} clips of the split {shard_set.split} are damaged, more than "
            f"training.max_damaged = {share:g} of them: nothing is scored. `mirasol data check` says how to repair them"
        )
        raise MirasolError(listing(title, lines, 20))
    if found:
        print(listing("damaged clips, whose questions count as wrong", lines, 20), file=sys.stderr)
    return found


def check_agreement(shards: Path, clips: Sequence[Clip], answers: Collection[str]) -> None:
    """Raise unless the shards hold all questions of a clip or none, and no other questions."""
    asked = {e.id: clip for clip in clips for e in clip.examples}
    unknown = [f"{example}: not in the manifest" for example in answers if example not in asked]
    for clip in clips:
        lost = [e.id for e in clip.examples if e.id not in answers]
        if 0 < len(lost) < len(clip.examples):
            unknown += [f"{example}: not in the shards, though its clip is" for example in lost]
    if unknown:
        raise MirasolError(listing(f"{shards}: made from another manifest, run `dvc repro shards`", unknown, 5))


def missing_clips(clips: Sequence[Clip], answers: Collection[str], shards: Path, damaged: Mapping[str, str]) -> Missing:
    """Clips without an answer, each with its medium, its number of questions and the reason."""
    reasons = {r["key"]: r["reason"] for r in read_index(shards)["rejected"]} | dict(damaged)
    return [
        {
            "clip": clip.key,
            "media": clip.media,
            "questions": len(clip.examples),
            "reason": reasons.get(clip.key, "not in the shards"),
        }
        for clip in clips
        if clip.examples[0].id not in answers
    ]
