"""Running a stage: the error it leaves, and how it ends on SIGTERM."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError, PeerError
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.run_stage import first_cause, run_stage
from mirasol.pipeline.stages import STAGES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's params.yaml, made the current one."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace_stage(monkeypatch: pytest.MonkeyPatch, main: Callable[[Params], None]) -> None:
    """Let stage `shards` be ``main``."""
    monkeypatch.setitem(STAGES, "shards", main)


def error_of(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "runs" / "shards" / "error.json").read_text(encoding="utf-8"))
    return found


def test_a_stage_gets_the_checked_parameters(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Params] = []
    replace_stage(monkeypatch, got.append)
    run_stage("shards")
    assert got[0].clip.chunks == 4


def test_a_mendable_error_is_left_in_its_own_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(params: Params) -> None:
        raise MirasolError("the test split is empty: add clips to it")

    replace_stage(monkeypatch, fail)
    with pytest.raises(MirasolError, match="the test split is empty"):
        run_stage("shards")
    found = error_of(project)
    assert found.pop("time") == pytest.approx(time.time(), abs=LIMIT)
    assert found == {
        "stage": "shards", "type": "MirasolError", "error": "the test split is empty: add clips to it", "rank": 0,
        "host": platform.node(), "processes": 1, "transient": False,
    }  # fmt: skip


def test_wrong_parameters_fail_the_stage_with_all_problems(project: Path) -> None:
    text = (
        (project / "params.yaml")
        .read_text(encoding="utf-8")
        .replace("crf: 18", "crf: 99")
        .replace("fps: 8.0", "fps: 0")
    )
    (project / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MirasolError):
        run_stage("shards")
    assert "clip.fps" in error_of(project)["error"]
    assert "shards.crf" in error_of(project)["error"]


def test_a_bug_is_left_with_its_type(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(params: Params) -> None:
        raise KeyError("h")

    replace_stage(monkeypatch, fail)
    with pytest.raises(KeyError):
        run_stage("shards")
    assert (error_of(project)["type"], error_of(project)["error"]) == ("KeyError", "KeyError: 'h'")


def test_a_full_disk_is_a_mendable_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(params: Params) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "build/shards/train-00000.tar")

    replace_stage(monkeypatch, fail)
    with pytest.raises(MirasolError, match=r"cannot write build/shards/train-00000\.tar: the disk is full"):
        run_stage("shards")


def test_the_error_of_an_earlier_run_is_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "runs" / "shards").mkdir(parents=True)
    (project / "runs" / "shards" / "error.json").write_text("{}", encoding="utf-8")
    replace_stage(monkeypatch, lambda params: None)
    run_stage("shards")
    assert not (project / "runs" / "shards" / "error.json").exists()


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int = 3) -> None:
    """Be process ``rank`` of torchrun's ``world``."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception, rank: int) -> None:
    """Let process ``rank`` fail with ``error``."""

    def fail(params: Params) -> None:
        raise error

    as_process(monkeypatch, rank)
    replace_stage(monkeypatch, fail)
    with pytest.raises(type(error)):
        run_stage("shards")


RESET = "[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:40213"


def test_the_users_error_comes_before_the_connections_that_it_broke(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, RuntimeError(RESET), 2)
    fails(monkeypatch, KeyError("h"), 1)
    fails(monkeypatch, ConnectionResetError("Connection reset by peer"), 0)
    found = error_of(project)
    assert (found["rank"], found["error"], found["transient"]) == (1, "KeyError: 'h'", False)


def test_without_one_the_first_broken_connection_is_worth_another_try(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, RuntimeError(RESET), 2)
    fails(monkeypatch, BrokenPipeError("Broken pipe"), 0)
    assert (error_of(project)["rank"], error_of(project)["transient"]) == (2, True)


def test_only_the_first_process_reports(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, KeyError("h"), 1)
    assert not (project / "runs/shards/error.json").exists()
    assert first_cause(project / "runs/shards") is not None


def test_a_cause_that_could_not_be_written_here_is_written_for_its_process(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes without a shared folder."""
    cause = {"type": "KeyError", "error": "KeyError: 'h'", "rank": 1, "host": "n2", "time": 1.0, "transient": False}
    fails(monkeypatch, PeerError("process 1 on n2 failed", [cause], transient=False), 0)
    assert (error_of(project)["rank"], error_of(project)["host"]) == (1, "n2")


def test_an_early_error_of_another_process_is_not_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, KeyError("h"), 1)
    as_process(monkeypatch, 0)
    replace_stage(monkeypatch, lambda params: None)
    run_stage("shards")
    assert first_cause(project / "runs/shards") is not None


def test_errors_that_no_process_of_this_run_can_have_written_are_removed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (1, 2):
        fails(monkeypatch, KeyError("h"), rank)
    os.utime(project / "runs/shards/errors/rank-1.json", (0, 0))
    as_process(monkeypatch, 0, world=2)
    replace_stage(monkeypatch, lambda params: None)
    run_stage("shards")
    assert first_cause(project / "runs/shards") is None


def test_a_process_that_started_others_reports_theirs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(params: Params) -> None:
        folder = project / "runs/shards/errors"
        folder.mkdir(parents=True)
        record = {"type": "KeyError", "error": "KeyError: 'h'", "rank": 0, "time": 1.0, "transient": False}
        (folder / "rank-0.json").write_text(json.dumps(record))
        raise MirasolError("torchrun exited with 1")

    replace_stage(monkeypatch, launch)
    with pytest.raises(MirasolError):
        run_stage("shards")
    assert error_of(project)["error"] == "KeyError: 'h'"


def test_a_stopped_process_reports_the_error_of_the_one_that_failed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun ends the others with SIGTERM."""
    fails(monkeypatch, KeyError("h"), 1)

    def stopped(params: Params) -> None:
        raise SystemExit(143)

    as_process(monkeypatch, 0)
    replace_stage(monkeypatch, stopped)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        run_stage("shards")
    signal.signal(signal.SIGTERM, handler)  # the stage ignores another one
    assert error_of(project)["rank"] == 1


def test_an_unknown_stage_names_the_nearest(project: Path) -> None:
    with pytest.raises(MirasolError, match="unknown stage `finetun`: did you mean `finetune`"):
        run_stage("finetun")


def test_sigterm_cleans_up_and_exits_with_143(project: Path) -> None:
    program = (
        "import time\n"
        "from mirasol.pipeline.run_stage import run_stage\n"
        "def main(params):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        open('cleaned', 'w').close()\n"
        "run_stage('shards', main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT) == 143
    assert (project / "cleaned").exists()
    assert not (project / "runs" / "shards" / "error.json").exists(), "being stopped is no error of the stage"


def test_every_stage_of_dvc_yaml_can_be_run() -> None:
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(STAGES)
    assert {name: stage["cmd"] for name, stage in stages.items()} == {name: f"mirasol stage {name}" for name in STAGES}
