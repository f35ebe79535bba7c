"""A cell: trained, marked like greedy generation, chunks shuffled together, labels dealt out again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ablations.cell import CONDITIONS, MARKS, CellRun, mark, permuted, run_cell
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.data.loading.texts import Text
from mirasol.data.manifest import read_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.world.make import make_world
from mirasol.evaluation.generate import answer, shuffled
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.config import ModelConfig, ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer
from mirasol.training.config import PhaseConfig, RunPaths, TrainingConfig

CLIP = ClipSpec(fps=4.0, chunks=8, frames_per_chunk=2, audio_bands=8)
SPEC = EvaluateSpec(split="test", batch_size=4)
TRAINING = TrainingConfig(threads=1, accelerator="cpu")
PHASE = PhaseConfig(steps=4, batch_size=4, warmup=1, checkpoint_every=2, val_clips=2, caption_weight=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    make_world(folder / "data", clips=8, workers=1, variant="hard")
    examples = read_manifest(folder / "data/manifest.jsonl")
    texts = [text for e in examples for text in (e.prompt, *e.answers)]
    train_tokenizer(texts, TokenizerSpec(max_text=40), folder / "tokenizer.json")
    build_shards(folder / "data", folder / "shards", CLIP, ShardsSpec(workers=1))
    return folder


def model_of(world: Path) -> ModelConfig:
    words = Tokenizer.load(world / "tokenizer.json")
    return build_config(
        ModelSpec(preset="tiny", num_queries=4, queries="last"),
        size=CLIP.size,
        frames_per_chunk=CLIP.frames_per_chunk,
        mels=CLIP.mels,
        audio_columns=CLIP.audio_columns,
        vocabulary=words.vocabulary,
        max_text=words.max_text,
    )


def batches(world: Path) -> list[Batch]:
    words = Tokenizer.load(world / "tokenizer.json")
    return list(eval_loader(ShardDataset(world / "shards", "test"), words, tasks=("qa",), batch_size=4))


def run(world: Path, folder: Path, *phases: str, permute: bool = False) -> dict[str, object]:
    runs = folder / "runs"
    paths = RunPaths(world / "shards", world / "tokenizer.json", runs / "cache", runs, folder / "out")
    return run_cell(CellRun([(n, PHASE) for n in phases], TRAINING, CLIP, model_of(world), paths, permute), SPEC)


def test_a_cell_marks_every_question_under_every_condition(world: Path, tmp_path: Path) -> None:
    report = run(world, tmp_path, "pretrain", "finetune")
    rows = [json.loads(line) for line in (tmp_path / "out" / MARKS).read_text().splitlines()]
    asked = {e.id for e in read_manifest(world / "data/manifest.jsonl") if e.split == "test" and e.task == "qa"}
    assert {row["id"] for row in rows} == asked
    assert all({row[c] for c in CONDITIONS} <= {0, 1} for row in rows)
    assert report["questions"] == len(rows)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {MARKS, "pretrain-curves.jsonl", "finetune-curves.jsonl"}


def test_a_cell_run_again_goes_on_and_marks_the_same(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path, "finetune")
    before = (tmp_path / "out" / MARKS).read_bytes()
    run(world, tmp_path, "finetune")
    assert (tmp_path / "out" / MARKS).read_bytes() == before


def test_a_mark_is_what_greedy_generation_gets_right(world: Path) -> None:
    """Weights are searched that answer some questions right: with random ones none is, and any rule would do."""
    words = Tokenizer.load(world / "tokenizer.json")
    torch.manual_seed(0)
    model = Mirasol(model_of(world)).eval()
    network = torch.optim.Adam(model.parameters(), 3e-3)
    found = batches(world)
    for _ in range(25):
        for batch in found:
            network.zero_grad()
            model(batch)["text"].backward()
            network.step()
    rows = {
        row["id"]: row["unchanged"] for row in mark(model, world / "shards", world / "tokenizer.json", SPEC, 1, None)
    }
    truth = {e.id: e.answers[0] for e in read_manifest(world / "data/manifest.jsonl")}
    said = {
        example: text
        for batch in found
        for ids, texts in zip(batch.example_ids, answer(model, batch, words, 12), strict=True)
        for example, text in zip(ids, texts, strict=True)
        if example
    }
    assert rows == {example: int(text == truth[example]) for example, text in said.items()}
    assert 0.02 < np.mean(list(rows.values())) < 0.98


def test_chunks_are_shuffled_with_their_sound(world: Path) -> None:
    batch = batches(world)[0]
    changed = shuffled(batch, seed=1)
    moved = 0
    for clip in range(len(batch.keys)):
        for t in range(CLIP.chunks):
            place = [s for s in range(CLIP.chunks) if torch.equal(changed.video[clip, t], batch.video[clip, s])]
            assert any(torch.equal(changed.audio[clip, t], batch.audio[clip, s]) for s in place)
            moved += t not in place
    assert moved
    assert torch.equal(shuffled(batch, seed=1).video, changed.video)


def test_labels_are_dealt_out_among_questions_of_the_same_words() -> None:
    def text(clip: int, prompt: int) -> Text:
        return Text(np.array([1, prompt, 2, 10 + clip], np.int32), 3, "qa", f"{clip}-{prompt}")

    before = [[text(clip, prompt) for prompt in (5, 6)] for clip in range(50)]
    after = permuted(before, seed=1)
    for place, prompt in enumerate((5, 6)):
        assert {row[place].ids[1] for row in after} == {prompt}
        answers = [int(row[place].ids[3]) for row in after]
        assert Counter(answers) == Counter(range(10, 60))
        assert sum(a == 10 + clip for clip, a in enumerate(answers)) < 8
