"""A step gives the same gradient however it is cut: processes, micro-batches, copies or shards."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from support.model import random_batch, tiny_model
from torch._dynamo.testing import CompileCounter

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import text_targets
from mirasol.model.losses import Objective
from mirasol.training.config import (
    PhaseConfig,
    PhaseRun,
    Processes,
    RunPaths,
    TrainingConfig,
    check_processes,
    started_processes,
)
from mirasol.training.parallel import compile_blocks
from mirasol.training.strategy import ShardedStrategy, build_strategy

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def split() -> Iterator[ModuleType]:
    """benchmarks/split.py, which is in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("split", BENCHMARKS / "split.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    sys.modules.pop("inputs", None)


@pytest.fixture(scope="module")
def whole(split: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The cuts of one process."""
    return dict(split.launch(1, tmp_path_factory.mktemp("one")))


def farthest(split: ModuleType, found: dict[str, Any], wanted: dict[str, torch.Tensor]) -> float:
    assert found
    return max(split.difference(each["gradients"], wanted) for each in found.values())


@pytest.mark.slow
def test_micro_batches_add_up_to_the_gradient_of_the_step(split: ModuleType, whole: dict[str, Any]) -> None:
    assert farthest(split, whole, whole["1 none 0"]["gradients"]) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_copies_and_shards_have_the_gradient_of_one_process(
    split: ModuleType, whole: dict[str, Any], world: int, tmp_path: Path
) -> None:
    found = split.launch(world, tmp_path)
    assert len(found) == len(split.CUTS[world])
    assert farthest(split, found, whole["1 none 0"]["gradients"]) <= 1e-6


@pytest.mark.slow
def test_fifty_steps_in_fp32_have_one_curve(split: ModuleType, tmp_path: Path) -> None:
    options = ("--steps", "50", "--precision", "float32")
    found = split.launch(1, tmp_path, *options) | split.launch(2, tmp_path, *options)
    wanted = found["1 none 0"]["losses"]
    for each in found.values():
        assert each["losses"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_muon_moves_shards_as_it_moves_whole_matrices(split: ModuleType, tmp_path: Path) -> None:
    options = ("--steps", "3", "--optimizer", "muon")
    found = split.launch(1, tmp_path, *options) | split.launch(2, tmp_path, *options)
    wanted = found["1 none 0"]["losses"]
    assert found["2 full 1"]["losses"] == pytest.approx(wanted, rel=1e-9)
    assert found["2 none 1"]["losses"] == pytest.approx(wanted, rel=1e-9)


def run_with(
    phase: PhaseConfig = PhaseConfig(),  # noqa: B008
    processes: Processes = Processes(),  # noqa: B008
    **training: Any,
) -> PhaseRun:
    places = RunPaths(*[Path()] * 5)
    return PhaseRun("finetune", phase, TrainingConfig(**training), ClipSpec(), places, processes=processes)


def test_one_process_needs_no_strategy() -> None:
    assert build_strategy(run_with()) == "auto"


def test_unused_parameters_are_looked_for_in_clips_of_one_chunk_alone() -> None:
    for chunks in (1, 2):
        strategy = build_strategy(run_with(PhaseConfig(chunks=chunks, video_weight=0.0), Processes(2)))
        assert isinstance(strategy, DDPStrategy)
        assert strategy._ddp_kwargs["find_unused_parameters"] == (chunks == 1)


def test_shards_are_copied_to_other_nodes_under_hybrid_alone() -> None:
    full, hybrid = (build_strategy(run_with(processes=Processes(2, 2), sharding=name)) for name in ("full", "hybrid"))
    assert isinstance(full, ShardedStrategy)
    assert isinstance(hybrid, ShardedStrategy)
    assert (full.copies, hybrid.copies) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "processes", "text"),
    [
        ({"sharding": "full"}, Processes(), r"training\.sharding is full, but one process trains"),
        ({"sharding": "hybrid"}, Processes(2), r"has one node: set training\.sharding to full"),
        ({"sharding": "full", "precision": "16-mixed"}, Processes(2), r"set training\.precision to bf16-mixed"),
        ({"micro_batch": 3}, Processes(2), r"micro_batch is 3.* the 8 clips .*choose a divisor of 8"),
        ({}, Processes(3), r"batch_size is 16.*among 3 .*choose a multiple of 3"),
        ({"sharding": "full", "precision": "16-mixed"}, Processes(3), r"(?s)among 3 .*bf16-mixed"),
    ],
)
def test_settings_that_do_not_go_with_the_processes_are_one_error(
    changes: dict[str, Any], processes: Processes, text: str
) -> None:
    with pytest.raises(MirasolError, match=text):
        check_processes("finetune", PhaseConfig(), TrainingConfig(**changes), processes)


def test_torchrun_says_which_processes_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_processes() == Processes()
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert started_processes() == Processes(4, 2)


def test_compiled_blocks_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compiled(function: Any, **options: Any) -> Any:
        seen.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    model = tiny_model()
    batch = random_batch(model.config)
    before = model(batch)["text"]
    compile_blocks(model)
    assert torch.equal(model(batch)["text"], before)
    names = [type(module).__name__ for module in model.modules()]
    assert seen == [{"dynamic": name == "TextBlock"} for name in names if name in ("Block", "TextBlock")]


def test_texts_of_other_lengths_are_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    count, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=count, **options))
    torch._dynamo.reset()
    model = tiny_model()
    batch = random_batch(model.config, chunks=2, texts=6)
    with torch._dynamo.config.patch(recompile_limit=64):  # compile_blocks sets it for the whole process
        compile_blocks(model.text)
        for last in range(1, 8):
            places = torch.arange(8)
            batch.answer_mask = ((places >= 1) & (places <= last)).expand(2, 6, 8)
            targets = text_targets(batch.tokens, batch.answer_mask)
            model(dataclasses.replace(batch, targets=targets), Objective(video=0.0))
    assert count.frame_count <= 2 * len(model.text.blocks)  # 13 if each length were compiled


def test_a_cut_of_clips_keeps_what_belongs_to_them(split: ModuleType) -> None:
    batch = split.clips(split.model_config(), 0, torch.float64)
    part = split.cut(batch, 6, 2)
    again = split.cut(dataclasses.replace(batch), 6, 2)
    assert torch.equal(part.tokens, batch.tokens[6:])
    assert torch.equal(part.targets.tokens, again.targets.tokens)


def test_processes_that_hang_end_with_an_error(
    split: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "SECONDS", 0.1)
    with pytest.raises(RuntimeError, match=r"1 processes were not done after 0\.1 s"):
        split.launch(1, tmp_path)
