"""One cell of an ablation: a small model trained from scratch on the hard world, and each test question marked.

`python -m ablations.cell` is stage `cell` of ablations/pipeline.yaml: params.yaml and cell.yaml -> build/cell and
reports/cell.json.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablations.tables import read_switches
from mirasol.core.files import atomic_write, write_json
from mirasol.data.conditions import Condition
from mirasol.data.loading.augment import draws_of, under
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import TrainingLoader, eval_loader
from mirasol.data.loading.texts import Text
from mirasol.evaluation.generate import shuffled
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUILD, PUBLISHED, RUNS, SHARDS, TOKENIZER
from mirasol.pipeline.run_stage import run_stage
from mirasol.pipeline.stages import model_config
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import PhaseConfig, PhaseRun, RunPaths, TrainingConfig
from mirasol.training.curves import CURVES
from mirasol.training.data_module import PhaseDataModule
from mirasol.training.phases import freeze
from mirasol.training.ranks import join
from mirasol.training.start import initial_model
from mirasol.training.trainer import describe, fit
from mirasol.training.validation import score_texts

MARKS = "marks.jsonl"
CONDITIONS = tuple(condition for condition in Condition if condition is not Condition.swapped)
TASKS = ("qa",)
PERMUTE = 0x5045  # the stream of random numbers that shuffles labels


@dataclass(frozen=True)
class CellRun:
    """One cell: its phases in turn, from random weights by ``training.seed``.

    ``paths.runs`` holds a folder for each phase; a run that was killed resumes from there.
    """

    phases: Sequence[tuple[str, PhaseConfig]]
    training: TrainingConfig
    clip: ClipSpec
    model: ModelConfig
    paths: RunPaths
    permute: bool = False  # shuffle the answers of the training split: a model can then learn no right answer

    def phase(self, name: str, config: PhaseConfig) -> PhaseRun:
        """The run of one phase."""
        paths = dataclasses.replace(self.paths, runs=self.paths.runs / name)
        return PhaseRun(name, config, self.training, self.clip, paths)


class PermutedDataModule(PhaseDataModule):
    """The training split with its answers shuffled among the questions of the same words."""

    def train_loader(self, rank: int = 0, world: int = 1, *, waveform: bool = False) -> TrainingLoader:
        """As of the parent, with other answers."""
        loader = super().train_loader(rank, world, waveform=waveform)
        clips = loader.samples.clips
        clips.texts = permuted(clips.texts, self.settings.seed)
        return loader


def permuted(texts: list[list[Text]], seed: int) -> list[list[Text]]:
    """The texts of all clips, each moved to a random clip with the same question."""
    places: dict[bytes, list[tuple[int, int]]] = {}
    for clip, row in enumerate(texts):
        for place, text in enumerate(row):
            places.setdefault(text.ids[: text.answer].tobytes(), []).append((clip, place))
    out = [list(row) for row in texts]
    for number, where in enumerate(places.values()):
        order = draws_of(seed, PERMUTE, number).permutation(len(where))
        for (clip, place), source in zip(where, order, strict=True):
            donor = where[int(source)]
            out[clip][place] = texts[donor[0]][donor[1]]
    return out


def train_cell(cell: CellRun) -> Mirasol:
    """The model after all phases of ``cell``."""
    network = initial_model(cell.model, None, cell.training.seed)
    for name, config in cell.phases:
        run = cell.phase(name, config)
        data = PermutedDataModule(run) if cell.permute else PhaseDataModule(run)
        freeze(network, config)
        made_by = describe(run, cell.model)
        made_by["settings"]["permute"] = cell.permute
        made_by["settings"]["before"] = [dataclasses.asdict(c) for n, c in cell.phases if n != name]
        with join(run.training.timeout) as ranks:
            fit(run, network, data, made_by, ranks)
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
    yield Condition.unchanged, batch
    yield Condition.muted, under(Condition.muted, batch)
    yield Condition.blanked, under(Condition.blanked, batch)
    yield Condition.shuffled, shuffled(batch, seed)


def run_cell(cell: CellRun, spec: EvaluateSpec) -> dict[str, Any]:
    """Train a cell, mark the questions of ``spec.split`` into ``marks.jsonl`` and copy its curves.

    Returns:
        Accuracy under each condition and per family, parameters, and seconds of this run.

    Raises:
        MirasolError: as the phases and the shards.
    """
    began, paths = time.monotonic(), cell.paths
    network = train_cell(cell)
    trained = time.monotonic()
    rows = mark(network, paths.shards, paths.tokenizer, spec, cell.training.threads, paths.cache)
    with atomic_write(paths.out / MARKS, "w") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    for name, _ in cell.phases:
        with atomic_write(paths.out / f"{name}-{CURVES}") as file:
            file.write((paths.runs / name / CURVES).read_bytes())
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
    paths = RunPaths(SHARDS, TOKENIZER, RUNS / "cell" / "cache", RUNS / "cell", BUILD / "cell")
    cell = CellRun(
        phases, params.training, params.clip, model_config(params, phases[-1][1]), paths, switches["permute"]
    )
    write_json(PUBLISHED / "cell.json", run_cell(cell, params.evaluate))


if __name__ == "__main__":
    run_stage("cell", main)
