"""`pip install mirasol[runtime]` in an environment of its own: no torch comes, and a file is answered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle import QUESTION, tiny_bundle
from support.media import tone, write_media

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "torchaudio", "pytorch-lightning", "dvc", "prefect", "onnx", "sentencepiece"}


@pytest.mark.slow
def test_the_runtime_extra_brings_no_torch_and_streams(tmp_path: Path) -> None:
    project = tmp_path / "project"  # a copy: setuptools leaves folders behind where it builds
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", f"{project}[runtime]"], capture_output=True, text=True, check=False
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("pip reaches no package index")
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"mirasol", "onnxruntime", "numpy", "av"} <= names
    assert not names & HEAVY

    media = write_media(tmp_path / "clip.mkv", frames=32, size=(16, 16), sound=tone(4.0))
    mirasol = tmp_path / "venv" / "bin" / "mirasol"
    for command in (
        ["answer", media, QUESTION, "--bundle", tiny_bundle()],
        ["stream", media, "--ask", QUESTION, "--fast", "--bundle", tiny_bundle()],
    ):
        ran = subprocess.run(
            [mirasol, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout
