"""Labels until the model is right on 90 % of the test clips: unsure clips first, compared with clips at random.

    mirasol bench label [--question TEXT] [--init FOLDER] [--steps N] [--rounds SEEDS] [--json FILE]

Needs data/, build/shards, build/tokenizer and the weights to start from (`dvc repro pretrain`). Each round is a seed.
Both arms begin with the same random clips, train from the same weights on the labels so far, then add a batch: the
one at random, the other the clips of least margin, as `mirasol label` orders them. The labels needed are interpolated
between batches. `--quick` replaces the model by a logistic regression on made points.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import arguments, report, share, table
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import BatchForm, TrainingLoader, collate
from mirasol.data.loading.mixing import ClipOrder, Mixture
from mirasol.data.loading.samples import Clips, EvaluationSamples, Wanted
from mirasol.evaluation.generate import score_answers
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.pipeline import paths
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.stages import model_config
from mirasol.serve.labels import Clip, Proposal, urgency
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import PhaseRun, RunPaths
from mirasol.training.data_module import PhaseDataModule
from mirasol.training.start import initial_model
from mirasol.training.trainer import describe, fit

WANTED = 0.9  # of the test clips answered right
ARMS = ("unsure", "random")


class Learnt(NamedTuple):
    """A model after a round of labels."""

    accuracy: float  # on the test clips
    margins: NDArray[np.float64]  # [pool], probability of the best answer less that of the next


Learner = Callable[[Sequence[int]], Learnt]  # from the labelled clips of the pool


class Plan(NamedTuple):
    """Numbers of labels: in the beginning, added in each round, and at most."""

    first: int
    batch: int
    most: int


def curve(learn: Learner, pool: int, plan: Plan, arm: str, seed: int) -> list[tuple[int, float]]:
    """(labels, accuracy) of each round, up to the first that reaches WANTED."""
    order = [int(number) for number in np.random.default_rng(seed).permutation(pool)]
    chosen, left = order[: plan.first], order[plan.first :]
    points: list[tuple[int, float]] = []
    while True:
        found = learn(chosen)
        points.append((len(chosen), found.accuracy))
        print(f"seed {seed}, {arm}: {len(chosen)} labels, {100 * found.accuracy:.1f} % right", flush=True)
        if found.accuracy >= WANTED or len(chosen) >= min(plan.most, pool):
            return points
        if arm == "unsure":
            left = least_sure(left, found.margins)
        chosen, left = chosen + left[: plan.batch], left[plan.batch :]


def least_sure(left: Sequence[int], margins: NDArray[np.float64]) -> list[int]:
    """The clips in the order of the page."""
    clips = {n: Clip(str(n), str(n), "train", proposal=Proposal("", 0.0, float(margins[n]))) for n in left}
    return sorted(left, key=lambda number: urgency(clips[number]))


def needed(points: Sequence[tuple[int, float]]) -> float:
    """Labels until WANTED, between the two rounds around it; the last number of labels if it was never reached."""
    for (a, low), (b, high) in itertools.pairwise(points):
        if low < WANTED <= high:
            return a + (b - a) * (WANTED - low) / (high - low)
    return float(points[-1][0])


class Points:
    """The stand-in: logistic regression on points on either side of a plane, drawn by ``seed``."""

    def __init__(self, seed: int, pool: int) -> None:
        draws = np.random.default_rng([seed, 7])
        self.points = draws.normal(size=(2 * pool, 10))
        self.labels = self.points @ draws.normal(size=10) > 0
        self.pool = pool

    def __call__(self, chosen: Sequence[int]) -> Learnt:
        """Learn from the labels of ``chosen``; the points after the pool are the test."""
        points, wanted = self.points[chosen], self.labels[chosen]
        weights = np.zeros(10)
        for _ in range(300):
            weights -= 0.5 * (points.T @ (self._shares(points, weights)[:, 1] - wanted) / len(chosen) + 1e-3 * weights)
        shares = self._shares(self.points, weights)
        right = shares.argmax(1) == self.labels
        return Learnt(float(right[self.pool :].mean()), margins_of(shares[: self.pool]))

    @staticmethod
    def _shares(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        yes = 1 / (1 + np.exp(-points @ weights))
        return np.stack([1 - yes, yes], axis=1)


def margins_of(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] of probabilities [N, answers]."""
    ordered = np.sort(shares, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


class LabelledDataModule(PhaseDataModule):
    """A phase that sees only the texts of some examples."""

    examples: frozenset[str] = frozenset()

    def train_loader(self, rank: int = 0, world: int = 1, *, waveform: bool = False) -> TrainingLoader:
        """As of the parent, of the clips with such a text."""
        loader = super().train_loader(rank, world, waveform=waveform)
        keep_examples(loader.samples.clips, self.examples)
        loader.samples.order = ClipOrder(loader.samples.clips.sets, Mixture({"": 1}, self.settings.seed))
        return loader


def keep_examples(clips: Clips, examples: frozenset[str]) -> None:
    """Leave out all other texts, and the clips without one."""
    texts = [[text for text in row if text.example in examples] for row in clips.texts]
    kept = [index for index, row in enumerate(texts) if row]
    clips.texts = [texts[i] for i in kept]
    clips.numbers, clips.sets = clips.numbers[kept], clips.sets[kept]


class Trained:
    """The project's model, finetuned on the labelled clips of one question."""

    def __init__(self, options: Any, seed: int, folder: Path) -> None:
        params = load_params()
        self.training = dataclasses.replace(params.training, seed=seed)
        self.phase = dataclasses.replace(
            params.finetune, tasks="qa", steps=options.steps, epochs=0, checkpoint_every=options.steps,
            warmup=min(params.finetune.warmup, options.steps // 4), caption_weight=0.0, texts_per_clip=1, mix="",
        )  # fmt: skip
        self.clip, self.model = params.clip, model_config(params, self.phase)
        self.folder, self.init = folder, options.init
        self.tokenizer = Tokenizer.load(paths.TOKENIZER)
        self.sets = {split: ShardDataset(paths.SHARDS, split, cache=paths.CACHE) for split in ("train", "test")}
        self.truth = {split: questions(found, options.question) for split, found in self.sets.items()}
        pool = np.random.default_rng([seed, 8]).permutation(sorted(self.truth["train"]))[: options.pool]
        self.pool = [str(example) for example in pool]
        self.answers = sorted(set(self.truth["train"].values()))

    def __call__(self, chosen: Sequence[int]) -> Learnt:
        """Train on ``chosen`` of the pool, then score the pool and the test clips."""
        examples = frozenset(self.pool[number] for number in chosen)
        digest = hashlib.sha256(" ".join(sorted(examples)).encode()).hexdigest()
        folder = self.folder / digest[:16]
        places = RunPaths(paths.SHARDS, paths.TOKENIZER, paths.CACHE, folder, folder, self.init)
        run = PhaseRun("finetune", self.phase, self.training, self.clip, places)
        network = initial_model(self.model, self.init, self.training.seed)
        data = LabelledDataModule(run)
        data.examples = examples
        made_by = describe(run, self.model)
        made_by["settings"]["labels"] = digest
        fit(run, network, data, made_by)
        pool = self._shares(network.eval(), "train", frozenset(self.pool))
        test = self._shares(network, "test", frozenset(self.truth["test"]))
        right = [self.answers[int(row.argmax())] == self.truth["test"][example] for example, row in test.items()]
        return Learnt(float(np.mean(right)), margins_of(np.stack([pool[example] for example in self.pool])))

    def _shares(self, network: Mirasol, split: str, examples: frozenset[str]) -> dict[str, NDArray[np.float64]]:
        """Example -> probability of each answer."""
        clips = Clips(self.sets[split], self.tokenizer, Wanted(("qa",)))
        keep_examples(clips, examples)
        form = BatchForm(self.sets[split].spec, self.tokenizer.max_text, clips.tasks)
        found: dict[str, NDArray[np.float64]] = {}
        loader = DataLoader(EvaluationSamples(clips), batch_size=32, collate_fn=lambda rows: collate(rows, form))
        with torch_threads(self.training.threads), torch.inference_mode():
            for batch in loader:
                scores = score_answers(network, batch, self.tokenizer, self.answers)
                shares = np.exp(scores - scores.max(-1, keepdims=True))
                shares /= shares.sum(-1, keepdims=True)
                for ids, rows in zip(batch.example_ids, shares, strict=True):
                    found |= {example: row for example, row in zip(ids, rows, strict=True) if example}
        return found


def questions(shard_set: ShardDataset, question: str) -> dict[str, str]:
    """Example -> first answer, of the examples that ask ``question``; one a clip."""
    found: dict[str, str] = {}
    for number in range(len(shard_set)):
        rows = [row for row in shard_set.meta(number)["examples"] if row["prompt"] == question]
        found |= {row["id"]: row["answers"][0] for row in rows[:1]}
    return found


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--question", default="Which sound came first?", help="the one that is labelled")
    parser.add_argument("--init", type=Path, default=paths.PRETRAIN, help="the weights that each training starts from")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--pool", type=int, default=1500, help="clips that could be labelled")
    parser.add_argument("--plan", type=int, nargs=3, default=(50, 50, 800), metavar=("FIRST", "BATCH", "MOST"))
    parser.add_argument("--runs", type=Path, default=Path("runs/label"), help="an interrupted training resumes here")
    options = parser.parse_args()
    plan = Plan(10, 5, 300) if options.quick else Plan(*options.plan)
    curves: dict[str, list[list[tuple[int, float]]]] = {arm: [] for arm in ARMS}
    for seed in range(1, options.rounds + 1):
        learn: Learner
        if options.quick:
            learn, pool = Points(seed, 400), 400
        else:
            learn = Trained(options, seed, options.runs / f"{seed}")
            pool = len(learn.pool)
        for arm in ARMS:
            curves[arm].append(curve(learn, pool, plan, arm, seed))
    wanted = {arm: [needed(points) for points in curves[arm]] for arm in ARMS}
    table([("seed", *ARMS), *((n + 1, *(wanted[arm][n] for arm in ARMS)) for n in range(options.rounds))])
    ratios = {"labels_needed": share([a / b for a, b in zip(wanted["unsure"], wanted["random"], strict=True)])}
    reached = {arm: [points[-1][1] >= WANTED for points in curves[arm]] for arm in ARMS}
    figures = {"curves": curves, "needed": wanted, "reached": reached, "question": options.question}
    report("label", options.json, ratios, figures)


if __name__ == "__main__":
    main()
