"""Several processes train as one, and one of them is stopped, killed, stuck, wrong or alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.scratch import LIMIT
from support.torchrun import await_step, pid_of, torchrun
from support.training import small_world

from mirasol.training.checkpoint import read_facts
from mirasol.training.resume import Checkpoints


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("world"))


def stop(world: Path, project: Path, sign: signal.Signals, *ranks: int, **changes: Any) -> str:
    """Train until step 7, send ``sign`` to ``ranks``, and wait for the end; the output."""
    with torchrun(world, project, **changes) as child:
        await_step(child, project, 7)
        for rank in ranks:
            os.kill(pid_of(project, rank), sign)
        return child.communicate(timeout=LIMIT)[0]


def finish(world: Path, project: Path, fault: str = "", **changes: Any) -> str:
    """Train to the end in two processes; the output."""
    with torchrun(world, project, fault=fault, **changes) as child:
        return child.communicate(timeout=LIMIT)[0]


def last_checkpoint(project: Path) -> int:
    return Checkpoints(project / "runs/finetune", 2).steps()[0]


def error_of(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "runs/finetune/error.json").read_text())
    return found


def outputs(project: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (project / "build/finetune").rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "ranks", [(1,), pytest.param((0,), marks=pytest.mark.slow), pytest.param((0, 1), marks=pytest.mark.slow)]
)
def test_sigterm_to_any_process_loses_no_step_of_all(world: Path, tmp_path: Path, ranks: tuple[int, ...]) -> None:
    said = stop(world, tmp_path, signal.SIGTERM, *ranks)
    assert [(tmp_path / f"left-{rank}").read_text() for rank in (0, 1)] == ["143", "143"], said
    begun = {int((tmp_path / f"step-{rank}").read_text()) for rank in (0, 1)}  # steps before the last one
    assert begun == {last_checkpoint(tmp_path) - 1}
    assert not (tmp_path / "runs/finetune/error.json").exists()


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_bytes_of_one_left_alone(world: Path, tmp_path: Path) -> None:
    stopped, alone = tmp_path / "stopped", tmp_path / "alone"
    stop(world, stopped, signal.SIGTERM, 0, steps=14)
    step = last_checkpoint(stopped)
    assert f"resumes at step {step} of 14" in finish(world, stopped, steps=14)
    finish(world, alone, steps=14)
    assert outputs(stopped) == outputs(alone)


@pytest.mark.slow
def test_a_killed_process_is_named_and_worth_another_try(world: Path, tmp_path: Path) -> None:
    stop(world, tmp_path, signal.SIGKILL, 1)
    found = error_of(tmp_path)
    assert "process 1 on " in found["error"]
    assert "does not answer; it last finished step" in found["error"]
    assert (found["rank"], found["transient"]) == (1, True)


@pytest.mark.slow
def test_the_error_of_a_process_is_the_stages(world: Path, tmp_path: Path) -> None:
    finish(world, tmp_path, "raise")
    found = error_of(tmp_path)
    assert (found["error"], found["rank"], found["transient"]) == ("KeyError: 'h'", 1, False)


@pytest.mark.slow
def test_rows_that_cannot_be_written_beside_the_steps_are_the_stages_error(world: Path, tmp_path: Path) -> None:
    finish(world, tmp_path, "full", sharding="full")
    found = error_of(tmp_path)
    assert "rows-" in found["error"] and "the disk is full" in found["error"]
    assert (found["rank"], found["transient"]) == (1, False)
    assert not Checkpoints(tmp_path / "runs/finetune", 2).steps()


@pytest.mark.slow
def test_sigterm_to_a_sharded_run_saves_the_last_step(world: Path, tmp_path: Path) -> None:
    said = stop(world, tmp_path, signal.SIGTERM, 1, sharding="full")
    assert [(tmp_path / f"left-{rank}").read_text() for rank in (0, 1)] == ["143", "143"], said
    begun = int((tmp_path / "step-0").read_text())
    assert last_checkpoint(tmp_path) == begun + 1
    assert read_facts(Checkpoints(tmp_path / "runs/finetune", 2).path(begun + 1)).step == begun + 1


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "text"), [("", "does not answer"), ("hang", "was waited for longer than")])
def test_a_process_that_stops_is_named_after_the_timeout(world: Path, tmp_path: Path, fault: str, text: str) -> None:
    if fault:  # torchrun need not kill it: its own thread ends it
        assert "forcefully exiting" not in finish(world, tmp_path, fault, timeout=15.0)
    else:
        stop(world, tmp_path, signal.SIGSTOP, 1, timeout=15.0)
    found = error_of(tmp_path)
    assert f"process 1 on {found['host']} {text}" in found["error"]
    assert (found["rank"], found["transient"]) == (1, True)


@pytest.mark.slow
def test_processes_without_a_shared_folder_end_with_one_error(world: Path, tmp_path: Path) -> None:
    stop(world, tmp_path, signal.SIGTERM, 0)
    finish(world, tmp_path, "elsewhere")
    found = error_of(tmp_path)["error"]
    assert f"{tmp_path}/elsewhere/runs/finetune/checkpoints/step-" in found
    assert "(process 1 on " in found


@pytest.mark.slow
def test_a_refusal_reaches_all_processes_and_changes_nothing(world: Path, tmp_path: Path) -> None:
    stop(world, tmp_path, signal.SIGTERM, 0)
    step = last_checkpoint(tmp_path)
    finish(world, tmp_path, lr=5e-4)
    assert "settings.phase.lr (0.001, now 0.0005)" in error_of(tmp_path)["error"]
    assert last_checkpoint(tmp_path) == step
