"""`mirasol stage`: its answers to a checkpoint of another run reach every process of the stage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.scratch import REPOSITORY
from typer.testing import CliRunner

from mirasol.cli.main import app
from mirasol.core.errors import MirasolError
from mirasol.pipeline.stages import STAGES
from mirasol.training.config import ANSWER


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The answer that each started stage found in its environment."""
    found: list[str | None] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ANSWER, "")  # comes back after the test
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "cluster.yaml").write_text("devices: 1\n")
    monkeypatch.setitem(STAGES, "pretrain", lambda params: found.append(os.environ.get(ANSWER)))
    return found


@pytest.mark.parametrize("answer", ["resume-anyway", "start-anew"])
def test_an_answer_reaches_the_stage(answers: list[str | None], answer: str) -> None:
    assert CliRunner().invoke(app, ["stage", "pretrain", f"--{answer}"]).exit_code == 0
    assert answers == [answer]


def test_both_answers_are_an_error(answers: list[str | None]) -> None:
    result = CliRunner().invoke(app, ["stage", "pretrain", "--resume-anyway", "--start-anew"])
    assert isinstance(result.exception, MirasolError)
    assert answers == []


def test_an_answer_for_a_stage_without_checkpoints_is_an_error(answers: list[str | None]) -> None:
    result = CliRunner().invoke(app, ["stage", "export", "--start-anew"])
    assert "export has no checkpoint" in str(result.exception)
