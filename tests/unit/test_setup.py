"""`make setup` chooses the build of torch: a stand-in for .venv/bin/python writes down what is asked of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU = "https://download.pytorch.org/whl/cpu"
PYTHON = """#!/usr/bin/env bash
echo "$@" >> asked.txt
[[ $1 == -c && $# == 3 ]] && exit "$STUB_ANSWERS"
[[ "$*" == *"$STUB_FAILS"* && -n $STUB_FAILS ]] && exit 1
exit 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "requirements.lock").write_text("# pins\nnumpy==2.4.0\ntorch==2.13.0\n", encoding="utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


def installs(pips: list[str]) -> list[str]:
    return [line for line in pips if line.startswith("install")]


def setup(project: Path, *choice: str, answers: bool = True, fails: str = "", path: str = "") -> tuple[list[str], str]:
    """The calls of pip that install torch or remove it, and the output of `make setup`."""
    variables = {k: v for k, v in os.environ.items() if k not in ("TORCH", "MAKEFLAGS", "MAKELEVEL")}
    variables |= {"STUB_ANSWERS": str(int(not answers)), "STUB_FAILS": fails, "PATH": path + os.environ["PATH"]}
    done = subprocess.run(
        ["make", "setup", *choice], cwd=project, env=variables, capture_output=True, text=True, check=False
    )
    asked = project / "asked.txt"
    lines = asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []
    asked.unlink(missing_ok=True)
    pips = [line.removeprefix("-m pip --disable-pip-version-check ") for line in lines if line.startswith("-m pip")]
    return [line for line in pips if "torch" in line], done.stdout + done.stderr


def test_cpu_takes_the_index_of_pytorch(project: Path) -> None:
    assert installs(setup(project, "TORCH=cpu")[0]) == [f"install -c .venv/lock --extra-index-url {CPU} torch==2.13.0"]


def test_an_index_that_does_not_answer_is_left_out(project: Path) -> None:
    pips, output = setup(project, "TORCH=cpu", answers=False)
    assert installs(pips) == ["install -c .venv/lock torch==2.13.0"]
    assert f"{CPU} does not answer" in output


def test_an_index_that_serves_no_file_is_left_out(project: Path) -> None:
    pips, output = setup(project, "TORCH=cpu", fails=CPU)
    assert installs(pips)[1:] == ["install -c .venv/lock torch==2.13.0"]
    assert "[setup] ready" in output


def test_cuda_is_the_build_of_the_package_index(project: Path) -> None:
    assert installs(setup(project, "TORCH=cuda")[0]) == ["install -c .venv/lock torch==2.13.0"]


def test_an_index_can_be_named(project: Path) -> None:
    index = "https://example.org/whl/rocm"
    (call,) = installs(setup(project, f"TORCH={index}")[0])
    assert call == f"install -c .venv/lock --extra-index-url {index} torch==2.13.0"


def test_a_named_index_that_fails_is_an_error(project: Path) -> None:
    pips, output = setup(project, "TORCH=https://example.org/whl/rocm", fails="example.org")
    assert len(installs(pips)) == 1
    assert "[setup] ready" not in output


def test_a_requirement_takes_the_place_of_the_locked_one(project: Path) -> None:
    assert installs(setup(project, "TORCH=torch==2.14.1")[0]) == ["install -c .venv/lock torch==2.14.1"]
    assert (project / ".venv" / "lock").read_text(encoding="utf-8") == "# pins\nnumpy==2.4.0\n"


def test_another_choice_installs_torch_again(project: Path) -> None:
    setup(project, "TORCH=cpu")
    assert setup(project)[0] == []
    assert setup(project, "TORCH=cpu")[0] == []
    assert setup(project, "TORCH=cuda")[0] == ["uninstall --quiet --yes torch", "install -c .venv/lock torch==2.13.0"]


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia[0-9]*"))), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_build_is_chosen(project: Path) -> None:
    tools = project / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    _, output = setup(project, path=f"{tools}:")
    assert "build: cpu" in output


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia[0-9]*"))), reason="this machine has a GPU")
def test_a_gpu_that_nvidia_smi_lists_chooses_cuda(project: Path) -> None:
    tools = project / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    _, output = setup(project, path=f"{tools}:")
    assert "build: cuda" in output


def test_real_recordings_that_are_not_named_are_asked_for_before_anything_is_installed(project: Path) -> None:
    done = subprocess.run(["make", "real"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Say where the data are" in done.stderr
    assert not (project / "asked.txt").exists()


def test_an_answer_in_a_minute_takes_the_locked_packages(project: Path) -> None:
    done = subprocess.run(["make", "-n", "try"], cwd=project, capture_output=True, text=True, check=False)
    assert "install --quiet -c requirements.lock -e '.[serve]'" in done.stdout
