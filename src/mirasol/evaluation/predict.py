"""From weights to one prediction a question of any benchmark: generated, and from closed sets scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mirasol.core.progress import Progress
from mirasol.data.loader import eval_loader
from mirasol.data.manifest import Example, clips_of
from mirasol.data.shardset import ShardSet
from mirasol.data.tokenizer import Tokenizer
from mirasol.evaluation import closed
from mirasol.evaluation.config import EvaluateSpec
from mirasol.evaluation.evaluate import (
    check_agreement,
    check_lengths,
    device_of,
    find_damaged,
    load_with,
    missing_clips,
)
from mirasol.evaluation.generate import answer
from mirasol.evaluation.predictions import Prediction
from mirasol.evaluation.protocols.protocol import Protocol
from mirasol.evaluation.questions import TASK, Questions
from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads

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
        MirasolError: an answer is longer than ``spec.max_answer``, the shards were made from another manifest, the
            tokenizer is of another training, or a file is missing or damaged.
    """
    words = Tokenizer.load(tokenizer)
    clips = clips_of(questions.asked)
    if protocol.closed != "options":
        check_lengths(words, clips, spec.max_answer)
    device = device_of(accelerator)
    model = load_with(weights, words, device)
    shard_set = ShardSet(shards, questions.asked[0].split, cache=cache, any_size=True)
    damaged = find_damaged(shard_set, max_damaged)
    asked = {e.id: e for e in questions.asked}
    classes = sorted({e.answers[0] for e in (*questions.asked, *questions.train)})
    found: dict[str, Prediction] = {}
    with torch_threads(threads), Progress("evaluate", len(shard_set) - len(damaged), "clips") as progress:
        for batch in eval_loader(shard_set, words, tasks=(TASK,), batch_size=spec.batch_size, without=damaged):
            found |= _answers(protocol, model, batch.to(device), words, spec, asked, classes)
            progress.advance(len(batch.keys))
    check_agreement(shards, clips, found)
    predictions = [found.get(e.id, Prediction(e.id, None)) for e in questions.asked]
    return predictions, missing_clips(clips, found, shards, damaged)


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
    texts: Sequence[Sequence[str]] = answer(model, batch, words, spec.max_answer, spec.beam, encoded)
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
            text, ranked = texts[b][q], {}
            if protocol.closed:
                pairs = zip(lists[b][q], (float(score) for score in scores[b][q]), strict=True)
                best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:KEPT]
                ranked = {option: round(score, 6) for option, score in best}
                text = best[0][0] if protocol.closed == "options" else text
            found[name] = Prediction(name, text, ranked)
    return found
