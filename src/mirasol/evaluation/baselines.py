"""What a trained model has to beat: the majority answer of each question, and a linear model on simple features.

Both learn from the train split and answer the rows that the model answered; differences are paired over groups. A
question is a prompt. Without torch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.core.progress import Progress
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import UNLABELLED, Example, clips_of
from mirasol.data.shards.format import DamagedClip, read_index
from mirasol.evaluation.features import PICTURE, SOUND, features_of
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.linear import train_linear
from mirasol.tasks.scoring.metrics import Constant
from mirasol.tasks.scoring.normalise import exact_match, normalise
from mirasol.tasks.scoring.statistics import HEADLINE_CLIPS, cluster_bootstrap, paired_bootstrap, paired_totals

TRAIN_CLIPS = 1000  # evenly spaced ones that the linear model learns from, at most
QUESTIONS = 64  # with the most rows: a linear model each; the others get their majority answer
SHOWN = 20  # questions with figures of their own
CLASSES = 64  # the most frequent answers of a question that a linear model chooses from
BASELINES = ("majority", "linear")

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sources:
    """Where the clips are."""

    shards: Path
    cache: Path | None = None  # folder of decoded clips


def baselines(rows: Rows, examples: Sequence[Example], sources: Sources, spec: EvaluateSpec) -> dict[str, Any]:
    """The model's score next to both baselines.

    Args:
        rows: the model's predictions, lines of predictions.jsonl.
        examples: the questions of all splits.

    Returns:
        ``overall`` and ``questions`` (at most ``SHOWN``, by prompt), each with ``model``, ``majority`` and ``linear``
        (``exact_match`` and ``ci95``) and ``minus_majority`` and ``minus_linear`` (``difference``, ``ci95``, ``p``);
        ``verdict`` in words; ``headline``: whether the clips are enough for one, and how many are needed.
        Equal inputs give equal values.
    """
    answers = answer_all(rows, examples, sources, spec.split)
    said = {"model": [row["predicted"]["unchanged"] for row in rows], **answers}
    right = {
        name: np.array([exact_match(text, row["answers"]) for text, row in zip(texts, rows, strict=True)], np.int64)
        for name, texts in said.items()
    }
    groups = [row["group"] for row in rows]
    asked = Counter(row["prompt"] for row in rows)
    questions = []
    for prompt, count in sorted(asked.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]:
        chosen = [index for index, row in enumerate(rows) if row["prompt"] == prompt]
        cell = _cell({name: hits[chosen] for name, hits in right.items()}, [groups[i] for i in chosen], spec)
        questions.append({"prompt": prompt, "n": count} | cell)
    overall = _cell(right, groups, spec)
    clips = len({row["clip"] for row in rows})
    return {
        "overall": overall,
        "questions": questions,
        "verdict": verdict(overall),
        "headline": {
            "enough": clips >= HEADLINE_CLIPS,
            "clips": clips,
            "needed": HEADLINE_CLIPS,
            "why": too_few(clips, spec.split),
        },
    }


def answer_all(rows: Rows, examples: Sequence[Example], sources: Sources, split: str) -> dict[str, list[str]]:
    """The answers of both baselines to ``rows``."""
    asked = [e for e in examples if e.task == "qa"]
    constant = Constant.learn((e.prompt, e.answers) for e in asked if e.split == "train")
    majority = [constant(row["prompt"]) for row in rows]
    without = {clip.key for clip in clips_of(e for e in examples if e.task == UNLABELLED)}
    features = {"train": _features(sources, "train", TRAIN_CLIPS, without), "val": _features(sources, "val")}
    tested = features["val"] if split == "val" else _features(sources, split)
    linear = list(majority)
    common = Counter(row["prompt"] for row in rows).most_common(QUESTIONS)
    with Progress("baselines", len(common), "questions") as progress:
        for prompt, _ in common:
            train, val = (_rows_of(asked, prompt, part, features[part]) for part in ("train", "val"))
            places = [i for i, row in enumerate(rows) if row["prompt"] == prompt and row["clip"] in tested]
            if len(train[1]) and places:
                found, _ = train_linear(train, val, np.stack([tested[rows[i]["clip"]] for i in places]))
                for place, answer in zip(places, found, strict=True):
                    linear[place] = answer
            progress.advance()
    return {"majority": majority, "linear": linear}


def _features(sources: Sources, split: str, most: int = 0, without: Collection[str] = ()) -> dict[str, Floats]:
    """The features of the clips of a split by key, of ``most`` evenly spaced ones if more.

    None of damaged clips, nor of those with a key in ``without``.
    """
    if not read_index(sources.shards)["splits"].get(split):
        return {}
    clips = ShardDataset(sources.shards, split, cache=sources.cache, any_size=True)
    known = [number for number, key in enumerate(clips.keys) if key not in without]
    count = min(most or len(known), len(known))
    chosen = [known[place] for place in np.linspace(0, len(known) - 1, count).round().astype(int).tolist()]
    found = {}
    with Progress(f"features of {split}", count, "clips") as progress:
        for number in chosen:
            with contextlib.suppress(DamagedClip):
                found[clips.keys[number]] = features_of(clips.arrays(number))
            progress.advance()
    return found


def _rows_of(
    examples: Sequence[Example], prompt: str, split: str, features: Mapping[str, Floats]
) -> tuple[Floats, list[str]]:
    """Features [N, F] and normalised answers of the clips of ``split`` that are asked ``prompt``."""
    mine = [e for e in examples if e.prompt == prompt and e.split == split]
    pairs = [
        (features[clip.key], normalise(e.answers[0]))
        for clip in clips_of(mine)
        for e in clip.examples
        if clip.key in features
    ]
    if split == "train":
        kept = {name for name, _ in Counter(answer for _, answer in pairs).most_common(CLASSES)}
        pairs = [pair for pair in pairs if pair[1] in kept]
    numbers = np.stack([vector for vector, _ in pairs]) if pairs else np.empty((0, PICTURE + SOUND))
    return numbers, [answer for _, answer in pairs]


def _cell(right: Mapping[str, NDArray[np.int64]], groups: Sequence[str], spec: EvaluateSpec) -> dict[str, Any]:
    chance = {"resamples": spec.resamples, "seed": spec.seed}
    cell: dict[str, Any] = {}
    for name, hits in right.items():
        interval = cluster_bootstrap(hits.tolist(), groups, **chance)
        cell[name] = {"exact_match": round(float(hits.mean()), 6), "ci95": [round(end, 6) for end in interval]}
    for name in BASELINES:
        totals, _ = paired_totals(right[name], right["model"], groups)
        found = paired_bootstrap(totals, **chance)
        cell[f"minus_{name}"] = {
            "difference": round(found.difference, 6),
            "ci95": [round(end, 6) for end in found.interval],
            "p": round(found.p, 6),
        }
    return cell


NAMES = {"majority": "the majority answer", "linear": "the linear model on simple features"}


def verdict(cell: Mapping[str, Any]) -> str:
    """What the model adds over each baseline, in words: something only where the interval excludes zero."""
    return " ".join(_sentence(cell, name) for name in BASELINES)


def _sentence(cell: Mapping[str, Any], name: str) -> str:
    low, high = (100 * end for end in cell[f"minus_{name}"]["ci95"])
    shares = f"{100 * cell['model']['exact_match']:.1f} % against {100 * cell[name]['exact_match']:.1f} %"
    figures = f"({shares}, difference {low:+.1f} to {high:+.1f} points)"
    points = 100 * cell[f"minus_{name}"]["difference"]
    if low > 0:
        return f"The model adds {points:.1f} points over {NAMES[name]} {figures}."
    worse = " and is worse" if high < 0 else ""
    return f"The model adds nothing over {NAMES[name]}{worse} {figures}."


def too_few(clips: int, split: str) -> str:
    """Why a score of so many clips is no headline; empty if it may be one."""
    if clips >= HEADLINE_CLIPS:
        return ""
    return (
        f"no headline: {clips} clip(s) of the split {split}, {HEADLINE_CLIPS} needed; import more clips, or give more "
        f"groups the split {split}"
    )
