"""From weights to one prediction a question of any benchmark: generated, and from closed sets scored."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.data.manifest import Example, clips_of, listing
from mirasol.evaluation import closed
from mirasol.evaluation.evaluate import (
    check_agreement,
    check_lengths,
    device_of,
    find_damaged,
    load_with,
    missing_clips,
)
from mirasol.evaluation.generate import answer
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.tasks.base.protocol import Protocol
from mirasol.tasks.questions import TASK, Questions
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.predictions import SHOWN, Prediction
from mirasol.tokenizer import Tokenizer

KEPT = 10  # scores of a closed set that a line keeps, the best


def predict(
    protocol: Protocol,
    questions: Questions,
    weights: Path,
    shards: Path,
    tokenizer: Path,
    spec: EvaluateSpec,
    threads: int,
    cache: Path | None = None,
    accelerator: str = "auto",
    max_damaged: float = 0.0,
) -> tuple[list[Prediction], list[dict[str, Any]]]:
    """Answer every question: open ones by generation, options by their score, classes by both.

    Args:
        questions: of a data folder whose shards are in ``shards``.
        others: as of :func:`mirasol.evaluation.evaluate.evaluate`.

    Returns:
        One prediction a question, in their order, ``None`` where the clip is not in the shards; and those clips,
        with the reason.

    Raises:
        MirasolError: an answer is longer than ``spec.max_answer``, an option or class does not fit behind its question,
            the shards were made from another manifest, the tokenizer is of another training, or a file is missing or
            damaged.
    """
    words = Tokenizer.load(tokenizer)
    clips = clips_of(questions.asked)
    if protocol.closed != "options":
        check_lengths(words, clips, spec.max_answer)
    device = device_of(accelerator)
    model = load_with(weights, words, device)
    classes = sorted({e.answers[0] for e in (*questions.asked, *questions.train)})
    if protocol.closed:
        check_closed(words, questions.asked, classes if protocol.closed == "classes" else (), model.config.max_text)
    shard_set = ShardDataset(shards, questions.asked[0].split, cache=cache, any_size=True)
    damaged = find_damaged(shard_set, max_damaged)
    asked = {e.id: e for e in questions.asked}
    found: dict[str, Prediction] = {}
    with torch_threads(threads), Progress("evaluate", len(shard_set) - len(damaged), "clips") as progress:
        for batch in eval_loader(shard_set, words, tasks=(TASK,), batch_size=spec.batch_size, without=damaged):
            found |= _answers(protocol, model, batch.to(device), words, spec, asked, classes)
            progress.advance(len(batch.keys))
    check_agreement(shards, clips, found)
    predictions = [found.get(e.id, Prediction(e.id, None)) for e in questions.asked]
    return predictions, missing_clips(clips, found, shards, damaged)


def check_closed(words: Tokenizer, asked: Sequence[Example], classes: Sequence[str], limit: int) -> None:
    """Raise unless the text cache of ``limit`` tokens holds each question with any of ``classes``, or else with any
    of its own options: told before hours of answering, not where the first such clip comes."""
    count = functools.cache(words.answer_length)
    prompt = functools.cache(lambda text: len(words.text_ids(text, None)))
    of_classes = max(classes, key=count, default="")
    needs = {e.id: (prompt(e.prompt), of_classes or max(e.options, key=count, default="")) for e in asked}
    long = {name: (before, text) for name, (before, text) in needs.items() if before + count(text) > limit}
    if long:
        longest = max(before + count(text) for before, text in long.values())
        title = (
            f"{len(long)} of {len(needs)} questions do not fit the text cache of tokenizer.max_text = {limit} tokens "
            f"with an answer to choose from, which takes {longest}: weights trained with that much are needed"
        )
        lines = [f"{name}: {text!r} is {count(text)} tokens behind {before}" for name, (before, text) in long.items()]
        raise MirasolError(listing(title, lines, SHOWN))


def _answers(
    protocol: Protocol,
    model: Mirasol,
    batch: Batch,
    words: Tokenizer,
    spec: EvaluateSpec,
    asked: Mapping[str, Example],
    classes: Sequence[str],
) -> dict[str, Prediction]:
    """The predictions of a batch, by question; ids that are not asked are kept, for the caller to refuse."""
    with torch.inference_mode():
        encoded = model.encode(batch)
    texts: Sequence[Sequence[str]] = ()
    if protocol.closed != "options":  # there the best option is the answer
        texts = answer(model, batch, words, spec.max_answer, spec.beam, encoded)
    lists: list[list[Sequence[str]]] = []
    scores: Any = None
    if protocol.closed == "classes":
        lists = [[classes for _ in clip] for clip in batch.example_ids]
        scores = closed.score_answers(model, batch, words, classes, encoded)
    elif protocol.closed:
        some = next((asked[n].options for clip in batch.example_ids for n in clip if n in asked), ("",))  # for padding
        lists = [[asked[n].options if n in asked else some for n in clip] for clip in batch.example_ids]
        scores = closed.score_options(model, batch, words, lists, encoded)
    found = {}
    for b, ids in enumerate(batch.example_ids):
        for q, name in enumerate(ids):
            if not name:  # padding
                continue
            ranked = {}
            if protocol.closed:
                pairs = zip(lists[b][q], (float(score) for score in scores[b][q]), strict=True)
                best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:KEPT]
                ranked = {option: round(score, 6) for option, score in best}
            text = texts[b][q] if texts else next(iter(ranked))
            found[name] = Prediction(name, text, ranked)
    return found
