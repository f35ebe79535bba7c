"""Running a stage: the error it leaves, and how it ends on SIGTERM."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.run_stage import run_stage
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


def error_of(project: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((project / "runs" / "shards" / "error.json").read_text(encoding="utf-8"))
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
    assert error_of(project) == {
        "stage": "shards",
        "type": "MirasolError",
        "error": "the test split is empty: add clips to it",
    }


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
    assert error_of(project) == {"stage": "shards", "type": "KeyError", "error": "KeyError: 'h'"}


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
