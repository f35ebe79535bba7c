"""Clips without texts in training: the latent and the reconstruction losses alone, and a gradient as for any step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from support.model import random_batch, tiny_model
from support.training import train, unlabelled

from mirasol.core.errors import MirasolError
from mirasol.model.batch import Batch, text_targets
from mirasol.model.losses import Objective, loss_counts
from mirasol.model.mirasol import Mirasol
from mirasol.training.curves import read_lines
from mirasol.training.data_module import with_text
from mirasol.training.weights import load_model


def bare(batch: Batch) -> Batch:
    """``batch`` without its texts."""
    texts = {name: getattr(batch, name)[:, :0] for name in ("tokens", "answer_mask", "text_weight")}
    return dataclasses.replace(batch, **texts, targets=text_targets(texts["tokens"], texts["answer_mask"]))


def rows(batch: Batch, low: int, high: int) -> Batch:
    """Some clips of ``batch``."""
    parts = {k: v[low:high] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(batch, **parts, targets=None)


def gradients(model: Mirasol, parts: list[Batch]) -> dict[str, torch.Tensor]:
    """The gradient of a step that is cut into ``parts``; 0 where there is none."""
    model.zero_grad()
    totals = torch.stack([loss_counts(part) for part in parts]).sum(0)
    for part in parts:
        Objective().weighted(model(part, totals=totals)).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def test_a_batch_without_texts_has_a_text_loss_of_exactly_0_and_finite_others() -> None:
    model = tiny_model()
    found = model(bare(random_batch(model.config)))
    assert found["text"].item() == 0.0
    assert all(found[name].isfinite() and found[name] > 0 for name in ("latent", "video"))


def test_a_batch_without_texts_runs_nothing_of_the_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model.text, "forward", None)
    monkeypatch.setattr(model.text, "memory_of", None)
    Objective().weighted(model(bare(random_batch(model.config)))).backward()
    assert all(parameter.grad is None for parameter in model.text.parameters())


def test_the_gradient_does_not_depend_on_which_part_of_a_step_has_the_texts() -> None:
    model = tiny_model(dtype=torch.float64)
    batch = random_batch(model.config, clips=4, dtype=torch.float64)
    batch.text_weight[2:] = 0.0  # the last two clips have none
    batch.answer_mask[2:] = False
    whole = gradients(model, [batch])
    cut = gradients(model, [rows(batch, 0, 2), bare(rows(batch, 2, 4))])
    assert max(float((whole[name] - cut[name]).abs().max()) for name in whole) <= 1e-12


def test_the_text_that_processes_share_changes_no_gradient() -> None:
    model = tiny_model()
    batch = bare(random_batch(model.config))
    one, other = gradients(model, [batch]), gradients(model, [with_text(batch)])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_text_that_processes_share_reaches_every_parameter_that_texts_reach() -> None:
    model = tiny_model()
    Objective().weighted(model(with_text(bare(random_batch(model.config))))).backward()
    assert all(parameter.grad is not None for parameter in model.text.parameters())


def test_a_phase_on_clips_without_texts_learns_picture_and_sound_alone(world: Path, tmp_path: Path) -> None:
    bare_world = unlabelled(world, tmp_path / "world")
    found = train(bare_world, tmp_path / "one", "pretrain", tasks="unlabelled", steps=1)
    train(bare_world, tmp_path / "two", "pretrain", tasks="unlabelled", steps=2)
    assert "text" not in found["train"] and {"latent", "video"} <= set(found["train"])
    one, two = (load_model(tmp_path / name / "build/pretrain").state_dict() for name in ("one", "two"))
    assert {name for name in one if not torch.equal(one[name], two[name])}.isdisjoint(n for n in one if "text." in n)
    assert any(not torch.equal(one[name], two[name]) for name in one if name.startswith("vit."))


def test_its_evaluations_give_the_losses_of_the_val_split(world: Path, tmp_path: Path) -> None:
    found = train(unlabelled(world, tmp_path / "world"), tmp_path, "pretrain", tasks="unlabelled")
    assert found["val"]["clips"] > 0 and 0 < found["val"]["latent"] < 2 and 0 < found["val"]["video"] < 2


def test_without_a_val_split_it_trains_too(world: Path, tmp_path: Path) -> None:
    found = train(unlabelled(world, tmp_path / "world", val=False), tmp_path, "pretrain", tasks="unlabelled")
    assert found["val"] == {} and found["steps"] == 4


def test_batches_may_mix_clips_with_and_without_texts(world: Path, tmp_path: Path) -> None:
    some = unlabelled(world, tmp_path / "world", texts=3)
    found = train(some, tmp_path, "pretrain", tasks="caption unlabelled", steps=12, checkpoint_every=6, batch_size=1)
    losses = [line["text"] for line in read_lines(tmp_path / "build/pretrain/curves.jsonl")]
    assert found["val"]["n"] > 0 and min(losses) >= 0 < max(losses) < 10


def test_questions_without_any_in_training_are_an_error(world: Path, tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no example of task qa"):
        train(unlabelled(world, tmp_path / "world", val=False), tmp_path, tasks="qa unlabelled")
