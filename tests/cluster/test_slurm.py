"""A phase as a job of a real Slurm: two nodes on this machine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.phase import FINETUNE_ALONE
from support.slurm import Slurm

pytestmark = [pytest.mark.cluster]
STAGE = [sys.executable, "-m", "mirasol", "stage", "finetune"]
TWO_NODES = "launcher: slurm\nnodes: 2\n"


def run(root: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=500, check=False)


def begin(root: Path, environment: dict[str, str], count: int = 400) -> subprocess.Popen[str]:
    """The stage with so many steps that a test can act meanwhile, once its job has trained some."""
    steps(root, count)
    log = (root / "driver.log").open("w")
    driver = subprocess.Popen(STAGE, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)
    until(lambda: re.search(r"^\[finetune\] \d+/[\d,]+ clips", logged(root), re.MULTILINE), driver)
    return driver


def until(holds: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 240.0) -> None:
    start = time.monotonic()
    while not holds():
        assert driver.poll() is None, f"the driver ended with {driver.returncode}"
        assert time.monotonic() - start < seconds
        time.sleep(0.1)


def steps(root: Path, count: int) -> None:
    path = root / "params.yaml"
    path.write_text(re.sub(r"^  steps: .*", f"  steps: {count}", path.read_text(), flags=re.MULTILINE))


def logged(root: Path) -> str:
    return (root / "driver.log").read_text()


def test_dvc_trains_on_two_nodes_as_on_one_machine(
    slurm: Slurm, project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    local = tmp_path / "local"
    shutil.copytree(project, local)
    (local / "cluster.yaml").write_text("devices: 2\n")
    assert run(local, environment, *STAGE).returncode == 0
    (project / "cluster.yaml").write_text(TWO_NODES)
    (project / "dvc.yaml").write_text(FINETUNE_ALONE)
    for command in (["git", "init", "-q"], [sys.executable, "-P", "-m", "dvc", "init", "-q"]):
        assert run(project, environment, *command).returncode == 0
    done = run(project, environment, sys.executable, "-P", "-m", "dvc", "repro", "finetune")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("weights.safetensors", "curves.jsonl"):
        assert (project / "build/finetune" / name).read_bytes() == (local / "build/finetune" / name).read_bytes()
    made_on = json.loads((project / "build/reports/finetune.json").read_text())["made_on"]
    assert (made_on["devices"], made_on["nodes"]) == (1, 2)
    assert re.search(r"job \d+ running on n\[1-2\]", done.stdout)
    assert "[finetune] 16/16 clips" in done.stdout


STAGES = "stages:\n  tokenizer:\n    launcher: slurm\n"


def test_a_stage_that_is_no_phase_runs_as_a_job(
    slurm: Slurm, project: Path, world: Path, environment: dict[str, str]
) -> None:
    shutil.copytree(world / "data", project / "data")
    made = project / "build/tokenizer/tokenizer.json"
    made.unlink()
    (project / "cluster.yaml").write_text(STAGES)
    done = run(project, environment, *STAGE[:-1], "tokenizer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert made.exists()
    assert "[tokenizer] 64 pieces" in done.stdout
    assert re.search(r"job \d+ running on n", done.stdout)


def test_the_error_of_a_stage_that_is_no_phase_is_the_drivers(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    (project / "cluster.yaml").write_text(STAGES)
    done = run(project, environment, *STAGE[:-1], "tokenizer")
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("data/manifest.jsonl") == 1


def test_the_check_tells_a_busy_cluster_from_a_wrong_option(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    check = [*STAGE[:-2], "cluster", "check", "--wait", "5"]
    (project / "cluster.yaml").write_text(TWO_NODES + 'slurm:\n  extra: "--reservation=nonesuch"\n')
    done = run(project, environment, *check)
    assert (done.returncode, "srun refuses" in done.stdout, "reservation" in done.stdout) == (1, True, True)
    slurm.call("sbatch", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 60")
    slurm.wait(lambda: "RUNNING" in slurm.jobs(), "running job")
    (project / "cluster.yaml").write_text(TWO_NODES)
    done = run(project, environment, *check)
    slurm.call("scancel", slurm.jobs().split()[0])
    slurm.wait(lambda: slurm.jobs() == "", "empty queue")
    assert (done.returncode, "2 were not free in 5 s" in done.stdout) == (0, True), done.stdout


def test_the_phases_own_error_ends_the_job_and_the_stage(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    path = project / "params.yaml"
    path.write_text(re.sub(r"^  lr: .*", "  lr: 1e30", path.read_text(), flags=re.MULTILINE))
    done = run(project, environment, *STAGE)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"^error: finetune: .* expected a finite number", done.stderr, re.MULTILINE)
    assert done.stdout.count(" job ") <= 3  # submitted once


def test_a_job_that_slurm_refuses_is_one_error(slurm: Slurm, project: Path, environment: dict[str, str]) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES + "slurm:\n  partition: nonesuch\n")
    done = run(project, environment, *STAGE)
    assert done.returncode == 2
    assert "sbatch refuses the job" in done.stderr
    assert "invalid partition" in done.stderr.lower()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_job_ends_with_its_driver(
    slurm: Slurm, project: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment)
    driver.send_signal(number)
    assert slurm.wait(lambda: slurm.jobs() == "", "empty queue", 15) < 15
    assert driver.wait(30) in {signal.SIGTERM: (143,), signal.SIGINT: (1, 130, -2), signal.SIGKILL: (-9,)}[number]


def test_a_cancelled_job_is_not_submitted_again(slurm: Slurm, project: Path, environment: dict[str, str]) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment)
    slurm.call("scancel", slurm.jobs().split()[0])
    assert driver.wait(60) == 2
    assert "was cancelled" in logged(project)


def test_a_preempted_job_goes_on_as_another_one(slurm: Slurm, project: Path, environment: dict[str, str]) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment)
    slurm.call("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5")
    until(lambda: "submits it again, 1 of 3" in logged(project), driver, 120)
    until(lambda: "resumes at step" in logged(project), driver, 120)
    driver.terminate()
    assert driver.wait(30) == 143


def test_a_job_that_lost_a_node_goes_on_when_it_is_back(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment)
    slurm.lose("n2")
    until(lambda: re.search("started again 1 times by Slurm|submits it again", logged(project)), driver)
    slurm.start_node("n2")
    slurm.call("scontrol", "update", f"JobId={slurm.jobs().split()[0]}", "StartTime=now")  # Slurm waits two minutes
    until(lambda: "resumes at step" in logged(project), driver)
    driver.terminate()
    assert driver.wait(30) == 143


def test_a_job_at_its_time_limit_goes_on_as_another_one(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment, 5000)
    slurm.call("scontrol", "update", f"JobId={slurm.jobs().split()[0]}", "TimeLimit=1")
    until(lambda: "submits it again, 1 of 3" in logged(project), driver)
    assert "exit status 143" in logged(project)  # Slurm warned, and the processes saved their last step
    until(lambda: "resumes at step" in logged(project), driver)
    driver.terminate()
    assert driver.wait(30) == 143


def test_processes_that_the_machine_kills_are_no_error_of_the_phase(
    slurm: Slurm, project: Path, environment: dict[str, str]
) -> None:
    import psutil

    (project / "cluster.yaml").write_text(TWO_NODES)
    driver = begin(project, environment)
    rank = ["-u", "-m", "mirasol", "stage", "finetune"]
    found = [p for p in psutil.process_iter(["cmdline", "cwd"]) if (p.info["cmdline"] or [])[1:] == rank]
    next(p for p in found if p.info["cwd"] == str(project)).kill()
    assert driver.wait(120) == 128 + signal.SIGKILL
    assert "was ended by signal 9" in logged(project)
