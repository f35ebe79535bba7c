"""The output of a command: passed on as it comes, an error only once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mirasol.pipeline.dvc.command import GRACE, CommandError, run
from mirasol.pipeline.launch.limits import CANCELS

PROGRAM = "print('work'); print('error: clip 7 is no video'); print('  in shard 2'); raise SystemExit({code})"


def output(root: Path, code: int) -> list[str]:
    seen: list[str] = []
    run(root, [sys.executable, "-c", PROGRAM.format(code=code)], on_line=seen.append)
    return seen


def test_the_error_of_a_command_that_fails_is_in_the_exception_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.raises(CommandError, match=r"clip 7 is no video\n  in shard 2$"):
        run(tmp_path, [sys.executable, "-c", PROGRAM.format(code=2)], on_line=seen.append)
    assert seen == ["work"]


def test_a_command_that_succeeds_loses_no_line(tmp_path: Path) -> None:
    assert output(tmp_path, 0) == ["work", "error: clip 7 is no video", "  in shard 2"]


def test_an_interrupted_stage_has_time_to_cancel_its_job() -> None:
    assert CANCELS < GRACE < 30  # seconds that Prefect's worker waits before SIGKILL
