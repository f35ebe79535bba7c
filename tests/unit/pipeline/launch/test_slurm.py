"""What the launcher writes for Slurm and reads from it; tests/cluster runs it on a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mirasol.core.errors import MirasolError
from mirasol.pipeline.launch import slurm
from mirasol.pipeline.launch.agent import other_folder
from mirasol.pipeline.launch.commands import State, call, parse
from mirasol.pipeline.launch.config import Cluster, SlurmSpec
from mirasol.pipeline.launch.lines import Lines
from mirasol.pipeline.launch.slurm import Job, lost, render, submit

FINISHED = (
    "JobId=4 JobName=x JobState=FAILED Reason=NonZeroExitCode Requeue=1 Restarts=2 ExitCode=143:0 Partition=low "
    "NodeList=n[1-2] BatchHost=n1"
)


def test_the_state_of_a_job_is_read() -> None:
    assert parse(FINISHED) == State("FAILED", 143, "NonZeroExitCode", "n[1-2]", "low", 2)
    assert parse("JobState=FAILED ExitCode=0:9 NodeList=(null)") == State("FAILED", 137)


@pytest.mark.parametrize("name", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED"])
def test_a_job_that_goes_on_has_not_ended(name: str) -> None:
    assert not State(name).ended
    assert State("COMPLETED").ended


def test_a_job_that_slurm_holds_after_a_failed_start_is_over() -> None:
    assert State("PENDING", reason="launch_failed_requeued_held").ended
    assert not State("PENDING", reason="BeginTime").ended


@pytest.mark.parametrize(
    ("end", "cause", "again"),
    [
        (State("PREEMPTED"), None, True),
        (State("TIMEOUT"), None, True),
        (State("PENDING", reason="launch_failed_requeued_held"), None, True),
        (State("FAILED", 143), None, True),
        (State("FAILED", 143), {"transient": True}, True),
        (State("FAILED", 143), {"transient": False}, False),
        (State("FAILED", 137), None, False),
        (State("FAILED", 2), {"transient": False}, False),
    ],
)
def test_only_a_job_that_the_cluster_ended_is_submitted_again(end: State, cause: Any, again: bool) -> None:
    assert lost(end, cause) == again


def test_the_script_starts_one_agent_a_node_within_modules_and_a_container() -> None:
    spec = SlurmSpec(modules="cuda/12.4 gcc", container="apptainer exec 'my image.sif'", python="python3")
    text = render("finetune", Cluster("slurm", 8, 2, slurm=spec), "runs/x=y")
    assert text.startswith("#!/bin/bash -l\nmodule load cuda/12.4 || exit 1\nmodule load gcc || exit 1\n")
    assert "apptainer exec 'my image.sif' python3 -P -m mirasol.pipeline.launch.agent" in text
    assert "--nnodes 2 --nproc-per-node 8 " in text
    assert text.endswith("-m mirasol stage finetune\n")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_without_a_container_it_is_the_python_that_submits() -> None:
    assert f" {sys.executable} -P -m" in render("finetune", Cluster("slurm"), "")


def test_a_stage_that_is_no_phase_is_one_process() -> None:
    text = render("shards", Cluster("slurm", slurm=SlurmSpec(python="python3")), "runs/x=y")
    assert text.endswith("\nexec srun --ntasks=1 python3 -P -u -m mirasol stage shards\n")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(("extra", "last"), [("", "TERM@60"), ("--signal=USR1@300", "USR1@300")])
def test_slurm_warns_before_the_time_limit_unless_the_user_asks_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, last: str
) -> None:
    called: list[str] = []
    done = subprocess.CompletedProcess((), 0, "7\n", "")
    monkeypatch.setattr(slurm, "call", lambda *words: called.extend(words) or done)
    submit(tmp_path / "job.sh", "x", Cluster("slurm", slurm=SlurmSpec(extra=extra)))
    assert [word for word in called if word.startswith("--signal=")][-1] == f"--signal={last}"


def test_lines_of_a_log_come_whole_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("finetune", "4", tmp_path / "log", Lines())
    job._pass_on()
    with job.log.open("w") as log:
        for text in ("one\ntw", "o\n", "end"):
            log.write(text)
            log.flush()
            job._pass_on()
    assert capsys.readouterr().out == "one\ntwo\n"
    job._pass_on(last=True)
    assert capsys.readouterr().out == "end\n"


def test_a_node_without_the_projects_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "launch").write_text("job-1")
    assert other_folder("launch=job-1") == ""
    assert "does not see the project's folder" in other_folder("launch=job-2")
    assert "does not see the project's folder" in other_folder("nonesuch=job-1")


def test_with_a_storage_a_node_has_its_own_copy_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRASOL_STORAGE", "s3://bucket/runs")
    assert f"has no project in {tmp_path}" in other_folder("launch=job-1")
    Path("params.yaml").touch()
    assert other_folder("launch=job-1") == ""


def test_the_script_names_the_storage() -> None:
    assert "MIRASOL_STORAGE=s3://bucket/runs" in render("finetune", Cluster(storage="s3://bucket/runs"), "mark")


def test_missing_commands_of_slurm_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonesuch")
    with pytest.raises(MirasolError, match="sbatch is not on PATH"):
        call("sbatch")
