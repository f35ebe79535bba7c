"""From weights to predictions and scores: every question of a split, answered and counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.core.progress import Progress
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.failures import DamagedClip
from mirasol.data.loading.loader import eval_loader
from mirasol.data.loading.reader import read_index
from mirasol.data.manifest import Clip, clips_of, listing, read_manifest
from mirasol.evaluation.generate import Answers, answer_all
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.metrics import CONDITIONS, Constant, read_families, score
from mirasol.tokenizer import Tokenizer
from mirasol.training.weights import load_model

TASK = "qa"  # what is asked; captions and names of sounds are only learnt from
PREDICTIONS = "predictions.jsonl"


def evaluate(
    weights: Path,
    shards: Path,
    tokenizer: Path,
    data: Path,
    spec: EvaluateSpec,
    out: Path,
    threads: int,
    cache: Path | None = None,
    accelerator: str = "auto",
    max_damaged: float = 0.0,
) -> dict[str, Any]:
    """Answer every question of ``spec.split`` and score the answers.

    Args:
        weights: folder of a trained model.
        shards: folder with ``shards.json``.
        tokenizer: ``tokenizer.json``.
        data: folder with ``manifest.jsonl``, which decides what is asked, and perhaps ``families.json``.
        out: folder for ``predictions.jsonl``, one line per question in the order of the manifest.
        threads: CPU threads of torch.
        cache: folder for decoded clips, which three of the passes read; ``None`` decodes them each time.
        accelerator: ``cpu`` leaves a GPU alone; else one that is there is used.
        max_damaged: share of the split's clips that may be damaged, ``training.max_damaged``.

    Returns:
        The report of :func:`mirasol.tasks.scoring.metrics.score` with ``split`` and ``missing``: the clips that
        the shards do not have or that are damaged, with the reason. Their questions count as wrong. Equal inputs give
        equal bytes.

    Raises:
        MirasolError: the split has no question, an answer is longer than ``spec.max_answer``, nothing of the
            split is in the shards, more of its clips are damaged than ``max_damaged``, or the shards were made from
            another manifest; or a file is missing.
    """
    examples = read_manifest(data / "manifest.jsonl")
    clips = clips_of(e for e in examples if e.split == spec.split and e.task == TASK)
    if not clips:
        counts = {s: sum(e.split == s and e.task == TASK for e in examples) for s in ("train", "val", "test")}
        raise MirasolError(
            f"{data / 'manifest.jsonl'}: split {spec.split!r} has no example of task {TASK!r}, so there is nothing to "
            f"evaluate (train has {counts['train']}, val {counts['val']}, test {counts['test']}): give some groups "
            "that split, or choose another with evaluate.split"
        )
    words = Tokenizer.load(tokenizer)
    check_lengths(words, clips, spec.max_answer)
    shard_set = ShardDataset(shards, spec.split, cache=cache, any_size=True)
    damaged = find_damaged(shard_set, max_damaged)
    answers = _answer(weights, shard_set, damaged, words, spec, threads, device_of(accelerator))
    check_agreement(shards, clips, answers)
    rows = [row for clip in clips for row in _predictions(clip, answers)]
    with atomic_write(out / PREDICTIONS, "w") as file:
        file.writelines(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
    constant = Constant.learn((e.prompt, e.answers) for e in examples if e.split == "train" and e.task == TASK)
    report = score(rows, read_families(data), constant, resamples=spec.resamples, seed=spec.seed)
    return report | {"split": spec.split, "missing": missing_clips(clips, answers, shards, damaged)}


def check_lengths(words: Tokenizer, clips: Sequence[Clip], max_answer: int) -> None:
    """Raise if a question has no answer that ``max_answer`` tokens can say: it would count wrong, always."""
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


def find_damaged(shard_set: ShardDataset, share: float) -> dict[str, str]:
    """Reason by key of each clip that cannot be read; told, and an error if there are too many."""
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
            f"training.max_damaged = {share:g} of them: nothing is scored. `mirasol data check` says how to mend them"
        )
        raise MirasolError(listing(title, lines, 20))
    if found:
        print(listing("damaged clips, whose questions count as wrong", lines, 20), file=sys.stderr)
    return found


def _answer(
    weights: Path,
    shard_set: ShardDataset,
    damaged: Collection[str],
    words: Tokenizer,
    spec: EvaluateSpec,
    threads: int,
    device: torch.device,
) -> Answers:
    model = load_with(weights, words, device)
    with torch_threads(threads), Progress("evaluate", len(shard_set) - len(damaged), "clips") as progress:
        batches = ((a.to(device), b and b.to(device)) for a, b in _batches(shard_set, damaged, words, spec))
        return answer_all(model, batches, words, spec.max_answer, progress, spec.beam, spec.seed)


def load_with(weights: Path, words: Tokenizer, device: torch.device) -> Mirasol:
    """The model in ``weights``, ready to answer; raise :class:`MirasolError` if ``words`` is of another training."""
    model = load_model(weights).to(device).eval()
    if words.vocabulary != model.config.vocabulary:
        raise MirasolError(
            f"the tokenizer has {words.vocabulary} pieces, the model in {weights} {model.config.vocabulary}: they "
            "are not of one training; run `dvc repro finetune`"
        )
    return model


def device_of(accelerator: str) -> torch.device:
    """A GPU where there is one, unless ``accelerator`` is ``cpu``."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def _batches(
    shard_set: ShardDataset, damaged: Collection[str], tokenizer: Tokenizer, spec: EvaluateSpec
) -> Iterator[tuple[Batch, Batch | None]]:
    """The clips as they are, each batch with the same clips under another clip's sound."""

    def load(condition: str) -> Iterator[Batch]:
        return iter(
            eval_loader(
                shard_set,
                tokenizer,
                tasks=(TASK,),
                batch_size=spec.batch_size,
                condition=condition,
                seed=spec.seed,
                without=damaged,
            )
        )

    sound = [number for number, key in enumerate(shard_set.keys) if key not in damaged]
    if sum(shard_set.meta(number)["has_audio"] for number in sound) < 2:  # no other sound to hear
        return ((batch, None) for batch in load("none"))
    return zip(load("none"), load("swapped"), strict=True)


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


def _predictions(clip: Clip, answers: Answers) -> Iterator[dict[str, Any]]:
    for example in clip.examples:
        given: Mapping[str, str] = answers.get(example.id, {})
        yield {
            "example_id": example.id,
            "clip": clip.key,
            "group": example.group,
            "family": example.family,
            "prompt": example.prompt,
            "answers": list(example.answers),
            "predicted": {condition: given.get(condition) for condition in CONDITIONS},
        }


def missing_clips(
    clips: Sequence[Clip], answers: Collection[str], shards: Path, damaged: Mapping[str, str]
) -> list[dict[str, Any]]:
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
