from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mirasol.data.conditions import Condition
from mirasol.data.loading.augment import under
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import eval_loader
from mirasol.evaluation.generate import answer, answer_all, prompts_of, shuffled
from mirasol.model.batch import Batch
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import ANSWER, BOS, PAD, Tokenizer
from mirasol.training.weights import load_model


def batch_of(project: Path, condition: str = "unchanged", size: int = 5) -> Batch:
    words = Tokenizer.load(project / "build/tokenizer/tokenizer.json")
    shard_set = ShardDataset(project / "build/shards", "test")
    return next(iter(eval_loader(shard_set, words, tasks=("qa",), batch_size=size, condition=condition)))


@pytest.mark.parametrize("condition", [Condition.muted, Condition.blanked])
def test_conditions_are_those_of_the_loader(made_project: Path, condition: Condition) -> None:
    changed, loaded = under(condition, batch_of(made_project)), batch_of(made_project, condition)
    for name in ("video", "audio", "video_present", "audio_present"):
        assert torch.equal(getattr(changed, name), getattr(loaded, name)), name


def test_prompts_end_at_the_answer_mark(made_project: Path) -> None:
    batch = batch_of(made_project)
    prompts, lengths = prompts_of(batch)
    for ids, row, counts in zip(batch.example_ids, prompts, lengths, strict=True):
        for example, prompt, count in zip(ids, row, counts, strict=True):
            kept = prompt[: int(count)].tolist()
            assert kept[0] == BOS
            assert kept[-1] == (ANSWER if example else BOS)
            assert set(prompt[int(count) :].tolist()) <= {PAD}


def test_the_model_does_not_see_the_answer(made_project: Path) -> None:
    model = load_model(made_project / "build/finetune").eval()
    words = Tokenizer.load(made_project / "build/tokenizer/tokenizer.json")
    batch = batch_of(made_project)
    other = dataclasses.replace(batch, tokens=batch.tokens.masked_fill(batch.answer_mask, 7))
    assert answer(model, batch, words, 4) == answer(model, other, words, 4)


@pytest.mark.parametrize("beam", [1, 2])
def test_all_conditions_are_answered_as_each_by_itself(made_project: Path, beam: int) -> None:
    model = load_model(made_project / "build/finetune").eval()
    words = Tokenizer.load(made_project / "build/tokenizer/tokenizer.json")
    batch, swapped = batch_of(made_project), batch_of(made_project, "swapped")
    found = answer_all(model, batch, swapped, words, EvaluateSpec(max_answer=6, beam=beam, seed=3))
    changed = {
        "unchanged": batch,
        "muted": under(Condition.muted, batch),
        "blanked": under(Condition.blanked, batch),
        "swapped": swapped,
    }
    changed["shuffled"] = shuffled(batch, 3)
    assert list(changed) == list(Condition)
    for condition, clips in changed.items():
        expected = answer(model, clips, words, 6, beam)
        for ids, row in zip(batch.example_ids, expected, strict=True):
            assert [found[example][condition] if example else "" for example in ids] == row, condition
    assert len({tuple(a[c] for a in found.values()) for c in changed}) == 5
