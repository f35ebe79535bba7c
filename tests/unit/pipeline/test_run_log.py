"""The place of a stage in its run, and the time left in all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mirasol.pipeline import run_log
from mirasol.pipeline.run_log import DEMO, RunLog

ROOT = Path(__file__).parents[3]
STAGES = list(DEMO)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test writes ``clock[0]``."""
    now = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    return now


def run_to(log: RunLog, name: str, clock: list[float], pace: float) -> None:
    """Run the stages before ``name`` at ``pace`` times the demo's seconds."""
    for stage in STAGES[: STAGES.index(name)]:
        log.begins(stage)
        clock[0] += pace * DEMO[stage][0]
        log.ends(stage, ran=True)
    log.begins(name)


def test_a_stage_knows_its_place(tmp_path: Path) -> None:
    log = RunLog(tmp_path, STAGES, STAGES)
    assert [log.place(name) for name in ("pretrain", "data.dvc")] == ["3/8 pretrain", "data.dvc"]


def test_nothing_is_said_before_the_run_has_a_pace(tmp_path: Path, clock: list[float]) -> None:
    log = RunLog(tmp_path, STAGES, STAGES)
    assert log.begins("tokenizer") == ""
    assert log.line("tokenizer", "[tokenizer] 1/2 texts 0:01 left") == "1/2 texts 0:01 left"


@pytest.mark.parametrize("pace", [0.5, 1.0, 3.0])
def test_the_time_left_in_all_follows_this_run(tmp_path: Path, clock: list[float], pace: float) -> None:
    log = RunLog(tmp_path, STAGES, STAGES)
    run_to(log, "finetune", clock, pace)
    rest = sum(DEMO[name][0] for name in ("finetune", "evaluate", "export", "benchmark"))
    assert log._left("finetune", None) == pytest.approx(pace * rest)


def test_a_line_with_a_time_says_that_of_the_run_too(tmp_path: Path, clock: list[float]) -> None:
    log = RunLog(tmp_path, STAGES, STAGES)
    run_to(log, "export", clock, 1.0)
    assert log.line("export", "[parity] 18/32 clips 3.5/s 0:38 left, worst 2e-06") == (
        "parity: 18/32 clips 3.5/s 0:38 left, 0:56 in all, worst 2e-06"
    )


def test_other_lines_stay(tmp_path: Path) -> None:
    log = RunLog(tmp_path, STAGES, STAGES)
    assert log.line("shards", "warning: left out [x] 3") == "warning: left out [x] 3"


def test_durations_of_an_earlier_run_count_from_the_start(tmp_path: Path, clock: list[float]) -> None:
    first = RunLog(tmp_path, STAGES, STAGES)
    run_to(first, "benchmark", clock, 2.0)
    clock[0] += 36
    first.ends("benchmark", ran=True)
    assert RunLog(tmp_path, STAGES, STAGES).begins("tokenizer") == "26:06 left in all"


def test_more_steps_take_longer_than_the_recorded_run(tmp_path: Path, clock: list[float]) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "runs").mkdir()
    clips = run_log._clips(tmp_path)["pretrain"]
    (tmp_path / "runs/durations.json").write_text(json.dumps({"pretrain": {"seconds": 60, "clips": clips // 2}}))
    assert RunLog(tmp_path, STAGES, ["pretrain"]).begins("pretrain") == "2:00 left in all"


def test_stages_that_do_not_run_take_no_time(tmp_path: Path, clock: list[float]) -> None:
    log = RunLog(tmp_path, STAGES, ["export", "benchmark"])
    log.begins("export")
    clock[0] = 38.0
    log.ends("export", ran=True)
    assert log.begins("benchmark") == "0:18 left in all"


@pytest.mark.parametrize("text", ["", "[]", '{"shards": 3}'])
def test_a_damaged_record_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/durations.json").write_text(text)
    assert RunLog(tmp_path, STAGES, STAGES).begins("tokenizer") == ""
