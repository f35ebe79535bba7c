"""A training that is killed and run again ends with the bytes of one that was left alone."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scratch import LIMIT
from support.training import small_world, train

from mirasol.core.errors import MirasolError
from mirasol.training.curves import read_lines
from mirasol.training.module import PhaseModule
from mirasol.training.resume import Checkpoints
from mirasol.training.saving import Saving

TESTS = Path(__file__).parent.parent
LONG: dict[str, Any] = {"steps": 60, "checkpoint_every": 13}
CHILD = """
import sys
from pathlib import Path
from support.training import train
train(Path(sys.argv[1]), Path(sys.argv[2]), steps=60, checkpoint_every=13)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run of the long phase writes when nothing happens."""
    project = tmp_path_factory.mktemp("undisturbed")
    train(world, project, **LONG)
    return outputs(project)


def outputs(project: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (project / "build" / "finetune").rglob("*") if p.is_file()}


def stop_at_step(world: Path, project: Path, step: int, sign: signal.Signals) -> int:
    """Train in another process, send it ``sign`` once its curves reach ``step``; its exit status."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(world), str(project)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    curves = project / "runs" / "finetune" / "curves.jsonl"
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_lines(curves)):
        assert child.poll() is None, f"training ended by itself: {child.communicate()[1]}"
        assert time.monotonic() < deadline, "training made no progress"
        time.sleep(0.005)
    child.send_signal(sign)
    child.communicate(timeout=LIMIT)
    return child.returncode


def resumed_step(text: str) -> int:
    found = re.search(r"\[finetune\] resumes at step (\d+) of 60", text)
    assert found, text
    return int(found[1])


def test_sigkill_in_the_middle_and_a_rerun_give_the_same_bytes(
    world: Path, tmp_path: Path, undisturbed: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    assert stop_at_step(world, tmp_path, 30, signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "build").exists()
    train(world, tmp_path, **LONG)
    assert resumed_step(capfd.readouterr().err) in (26, 39, 52)
    assert outputs(tmp_path) == undisturbed


def test_sigterm_keeps_the_last_step_and_the_status_says_so(
    world: Path, tmp_path: Path, undisturbed: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    assert stop_at_step(world, tmp_path, 30, signal.SIGTERM) == 128 + signal.SIGTERM
    train(world, tmp_path, workers=1, **LONG)  # and with another number of loader processes
    assert resumed_step(capfd.readouterr().err) >= 30
    assert outputs(tmp_path) == undisturbed


def test_a_kill_between_a_line_and_its_checkpoint_doubles_no_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world, tmp_path / "left alone")
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", failing_after(1, RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            train(world, tmp_path / "killed")
    assert [line["step"] for line in read_lines(tmp_path / "killed/runs/finetune/curves.jsonl")] == [2, 4]
    train(world, tmp_path / "killed")
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "left alone")


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", failing_after(1, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(MirasolError, match=r"step-4\.ckpt: the disk is full"):
            train(world, tmp_path)
    train(world, tmp_path)
    assert "resumes at step 2 of 4" in capfd.readouterr().err


def test_a_save_that_fails_beside_the_steps_ends_the_run_at_the_next_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.save", failing_after(0, OSError(errno.ENOSPC, "No space left on device")))
    begin = Saving.begin

    def ended(self: Saving, *given: Any) -> None:
        begin(self, *given)
        assert self._thread is not None
        self._thread.join()

    monkeypatch.setattr(Saving, "begin", ended)
    with pytest.raises(MirasolError, match=r"step-3\.ckpt: the disk is full"):
        train(world, tmp_path, steps=9, checkpoint_every=3)
    assert [line["step"] for line in read_lines(tmp_path / "runs/finetune/curves.jsonl")] == [3]


def test_an_error_of_a_step_loses_no_save_before_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, parts: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            failed.set()
            raise KeyError("h")
        step(self, parts, batch_idx)

    def slow(value: Any, file: Any) -> None:
        failed.wait(30)
        save(value, file)

    failed, step, save = threading.Event(), PhaseModule.training_step, torch.save
    monkeypatch.setattr(PhaseModule, "training_step", fail)
    monkeypatch.setattr("torch.save", slow)
    with pytest.raises(KeyError, match="h"):
        train(world, tmp_path)
    assert Checkpoints(tmp_path / "runs/finetune", 2).steps() == [2]


def failing_after(calls: int, error: Exception) -> Any:
    """``torch.save`` that works ``calls`` times, then writes half a file and fails."""
    real, left = torch.save, [calls]

    def save(value: Any, file: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            return real(value, file)
        file.write(b"half a file")
        raise error

    return save
