"""`mirasol stage` as a driver: processes of this machine, their errors and their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.phase import phase_project
from support.training import small_world

from mirasol.core.errors import MirasolError
from mirasol.pipeline.launch.driver import train
from mirasol.pipeline.launch.lines import Lines
from mirasol.pipeline.params.load import load_params

STAGE = [sys.executable, "-m", "mirasol", "stage", "pretrain"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def project(small: Path, tmp_path: Path) -> Path:
    root = phase_project(small, tmp_path / "project", steps=2)
    (root / "cluster.yaml").write_text("devices: 2\n")
    return root


def test_two_processes_train_and_say_so(project: Path) -> None:
    done = subprocess.run(STAGE, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[pretrain] 8/8 clips" in done.stdout
    assert '"devices": 2' in (project / "build/reports/pretrain.json").read_text()


def test_two_processes_make_the_bytes_of_one(small: Path, tmp_path: Path) -> None:
    made = []
    for devices in (1, 2):
        root = phase_project(small, tmp_path / str(devices), steps=3)
        (root / "cluster.yaml").write_text(f"devices: {devices}\n")
        path = root / "params.yaml"
        path.write_text(re.sub(r"^  micro_batch: .*", "  micro_batch: 2", path.read_text(), flags=re.MULTILINE))
        subprocess.run(STAGE, cwd=root, capture_output=True, timeout=300, check=True)
        made.append([(root / "build/pretrain" / name).read_bytes() for name in ("weights.safetensors", "curves.jsonl")])
    assert made[0] == made[1]


def test_an_error_of_the_processes_is_the_stages_own(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(re.sub(r"^  lr: .*", "  lr: 1e30", path.read_text(), flags=re.MULTILINE))
    done = subprocess.run(STAGE, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("expected a finite number") == 1


@pytest.mark.slow
def test_sigterm_of_the_driver_stops_all_and_loses_nothing(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(re.sub(r"^  steps: .*", "  steps: 2000", path.read_text(), flags=re.MULTILINE))
    with subprocess.Popen(STAGE, cwd=project, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        next(line for line in driver.stdout if "clips" in line)
        driver.send_signal(signal.SIGTERM)
        start = time.monotonic()
        driver.stdout.read()
        assert driver.wait(60) == 128 + signal.SIGTERM
        assert time.monotonic() - start < 30
    assert list((project / "runs/pretrain").glob("**/*.ckpt"))


def test_a_batch_that_does_not_divide_starts_no_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    Path("cluster.yaml").write_text("devices: 3\n")
    with pytest.raises(MirasolError, match=r"batch_size is 4.*among 3 \(3 devices x 1 nodes of cluster.yaml\)"):
        train("pretrain", load_params())


def test_copies_that_srun_started_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(MirasolError, match="srun started 2 copies"):
        train("pretrain", load_params())


def test_lines_from_an_error_on_wait(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for text in ("one", "error: two", "three"):
        lines.say(text)
    assert capsys.readouterr().out == "one\n"
    lines.begin("four")
    assert capsys.readouterr().out == "error: two\nthree\nfour\n"


def test_a_process_that_is_stuck_does_not_hold_up_the_end(tmp_path: Path) -> None:
    agent = [sys.executable, "-P", "-m", "mirasol.pipeline.launch.agent", "--standalone", "--nproc-per-node", "2"]
    program = f"cd {tmp_path}; if [ $RANK = 0 ]; then while [ ! -e stuck ]; do sleep 0.1; done; exit 7; fi; "
    program += "trap '' TERM; touch stuck; sleep 20; touch outlived"
    done = subprocess.run([*agent, "--no-python", "bash", "-c", program], capture_output=True, check=False)
    assert done.returncode == 7
    assert not (tmp_path / "outlived").exists()


def test_the_agent_exits_with_the_status_of_its_process() -> None:
    agent = [sys.executable, "-P", "-m", "mirasol.pipeline.launch.agent", "--standalone", "--no-python", "sh", "-c"]
    environment = {k: v for k, v in os.environ.items() if k != "MIRASOL_LAUNCH"}
    done = subprocess.run([*agent, "exit 7"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "")
