"""One cell of an ablation: a small model trained from scratch on the hard world, and each test question marked.

`python -m ablations.cell` is stage `cell` of ablations/pipeline.yaml: params.yaml and cell.yaml -> build/cell and
reports/cell.json.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ablations.tables import read_switches
from mirasol.core.files import atomic_write, write_json
from mirasol.data.loading.augment import other_draws
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import TrainingLoader, eval_loader
from mirasol.data.loading.texts import Text
from mirasol.evaluation.generate import blanked, muted, shuffled
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUILD, REPORTS, RUNS, SHARDS, TOKENIZER
from mirasol.pipeline.run_stage import run_stage
from mirasol.pipeline.stages import model_config
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import PhaseConfig, TrainingConfig
from mirasol.training.curves import CURVES
from mirasol.training.data_module import Feed
from mirasol.training.phases import find_phase, freeze
from mirasol.training.trainer import describe, fit, initial_model
from mirasol.training.validation import score_texts

MARKS = "marks.jsonl"
CONDITIONS = ("full", "muted", "blanked", "shuffled")
TASKS = ("qa",)
PERMUTE = 0x5045  # draws of their own: those that shuffle labels


class PermutedFeed(Feed):
    """The training split with its answers dealt out anew among the questions of the same words."""

    def train_loader(self, start: int, rank: int, world: int, waveform: bool = False) -> TrainingLoader:
        loader = super().train_loader(start, rank, world, waveform)
        clips = loader.samples.clips  # type: ignore[attr-defined]
        clips.texts = permuted(clips.texts, self.training.seed)
        return loader


def permuted(texts: list[list[Text]], seed: int) -> list[list[Text]]:
    """The texts of all clips, each handed to another clip that is asked the same; nothing but the clip decides."""
    places: dict[bytes, list[tuple[int, int]]] = {}
    for clip, row in enumerate(texts):
        for place, text in enumerate(row):
            places.setdefault(text.ids[: text.answer].tobytes(), []).append((clip, place))
    out = [list(row) for row in texts]
    for number, where in enumerate(places.values()):
        order = other_draws(seed, PERMUTE, number).permutation(len(where))
        for (clip, place), source in zip(where, order, strict=True):
            donor = where[int(source)]
            out[clip][place] = texts[donor[0]][donor[1]]
    return out


def train_cell(
    phases: Sequence[tuple[str, PhaseConfig]],
    training: TrainingConfig,
    clip: ClipSpec,
    model: ModelConfig,
    shards: Path,
    tokenizer: Path,
    runs: Path,
    permute: bool,
) -> Mirasol:
    """The phases in turn, from random weights; goes on from the checkpoint in ``runs`` of a run that was killed."""
    network = initial_model(model, None, training.seed)
    for name, config in phases:
        phase, folder = find_phase(name), runs / name
        kind = PermutedFeed if permute else Feed
        feed = kind(
            phase.tasks, config, training, clip=clip, shards=shards, tokenizer=tokenizer, cache=runs / "cache",
            runs=folder,
        )  # fmt: skip
        freeze(network, phase)
        made_by = describe(name, config, training, clip, model, shards, tokenizer, None)
        made_by["settings"]["permute"] = permute
        made_by["settings"]["before"] = [dataclasses.asdict(c) for n, c in phases if n != name]
        fit(name, network, feed, config, training, made_by, folder)
    return network.eval()


def mark(
    model: Mirasol, shards: Path, tokenizer: Path, spec: EvaluateSpec, threads: int, cache: Path
) -> list[dict[str, Any]]:
    """Each question of ``spec.split`` with whether it is answered right under each of ``CONDITIONS``.

    An answer is right if every token of it, its end included, is the likeliest one after the tokens before it: then,
    and only then, greedy generation gives it word for word (P 4, exact match). One pass tells, none is generated.
    """
    shard_set, words = ShardDataset(shards, spec.split, cache=cache), Tokenizer.load(tokenizer)
    about = {row["id"]: row for number in range(len(shard_set)) for row in shard_set.meta(number)["examples"]}
    marks: dict[str, dict[str, Any]] = {}
    with torch_threads(threads), torch.inference_mode():
        for batch in eval_loader(shard_set, words, tasks=TASKS, batch_size=spec.batch_size):
            for condition, changed in _conditions(batch, spec.seed):
                _, right = score_texts(model, changed)
                for ids, row in zip(batch.example_ids, right.tolist(), strict=True):
                    for example, correct in zip(ids, row, strict=True):
                        if example:
                            marks.setdefault(example, {})[condition] = int(correct)
    return [
        {"id": example, "group": about[example]["group"], "family": about[example]["family"], **right}
        for example, right in sorted(marks.items())
    ]


def _conditions(batch: Batch, seed: int) -> Iterator[tuple[str, Batch]]:
    yield "full", batch
    yield "muted", muted(batch)
    yield "blanked", blanked(batch)
    yield "shuffled", shuffled(batch, seed)


def run_cell(
    phases: Sequence[tuple[str, PhaseConfig]],
    training: TrainingConfig,
    clip: ClipSpec,
    model: ModelConfig,
    spec: EvaluateSpec,
    shards: Path,
    tokenizer: Path,
    out: Path,
    runs: Path,
    *,
    permute: bool = False,
) -> dict[str, Any]:
    """Train a cell and mark the questions of ``spec.split`` into ``out/marks.jsonl``, curves beside them.

    Args:
        phases: names and settings of what is trained in turn, from random weights by ``training.seed``.
        runs: folder of checkpoints; a run that was killed goes on from there.
        permute: deal the answers of the training split out anew: nothing that is learnt can then be right.

    Returns:
        Accuracy under each condition and per family, parameters, and seconds of this run.

    Raises:
        MirasolError: as the phases and the shards.
    """
    began = time.monotonic()
    network = train_cell(phases, training, clip, model, shards, tokenizer, runs, permute)
    trained = time.monotonic()
    rows = mark(network, shards, tokenizer, spec, training.threads, runs / "cache")
    with atomic_write(out / MARKS, "w") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    for name, _ in phases:
        with atomic_write(out / f"{name}-{CURVES}") as file:
            file.write((runs / name / CURVES).read_bytes())
    families = sorted({row["family"] for row in rows})
    return {
        "split": spec.split,
        "questions": len(rows),
        "accuracy": {c: _mean([row[c] for row in rows]) for c in CONDITIONS},
        "families": {
            f: {c: _mean([row[c] for row in rows if row["family"] == f]) for c in CONDITIONS} for f in families
        },
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": {"train": round(trained - began), "mark": round(time.monotonic() - trained)},
    }


def _mean(marks: Sequence[int]) -> float:
    return round(sum(marks) / len(marks), 6)


def main(params: Params) -> None:
    """The phases that cell.yaml asks for, by params.yaml."""
    switches = read_switches(Path("cell.yaml"))
    names = ("pretrain", "finetune") if switches["pretrain"] else ("finetune",)
    phases = [(name, getattr(params, name)) for name in names]
    report = run_cell(
        phases, params.training, params.clip, model_config(params), params.evaluate, SHARDS, TOKENIZER,
        BUILD / "cell", RUNS / "cell", permute=switches["permute"],
    )  # fmt: skip
    write_json(REPORTS / "cell.json", report)


if __name__ == "__main__":
    run_stage("cell", main)
