"""`pip install .[runtime]` installs no torch, and its packages answer a file.

The fast test imports only the packages' requirements; the slow one runs pip.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.bundle import QUESTION, tiny_bundle
from support.media import tone, write_media

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "torchaudio", "pytorch-lightning", "dvc", "prefect", "onnx", "sentencepiece"}


NEEDED = {"mirasol-av", "onnxruntime", "numpy", "av"}
METADATA = "import setuptools.build_meta as b, sys; print(b.prepare_metadata_for_build_wheel(sys.argv[1]))"
ONLY = """
import json, sys

class Only:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

refused = set(json.loads(sys.argv.pop(1)))
sys.meta_path.insert(0, Only)
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    from mirasol.cli.main import main
    main()
"""
EXAMPLE = "import mirasol; print(mirasol.load({bundle!r}).answer({media!r}, {question!r}))"


def copied(folder: Path) -> Path:
    """The project: setuptools leaves folders behind where it builds."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


def brought(wheel: importlib.metadata.Distribution, extra: str) -> set[str]:
    """Names of all packages that come with ``wheel[extra]``, as the installed ones say what they need."""
    found = {canonicalize_name(wheel.metadata["Name"])}
    waiting = [(wheel, ("", extra))]
    while waiting:
        package, extras = waiting.pop()
        for requirement in map(Requirement, package.requires or ()):
            marker, name = requirement.marker, canonicalize_name(requirement.name)
            if name not in found and (marker is None or any(marker.evaluate({"extra": e}) for e in extras)):
                found.add(name)
                waiting.append((importlib.metadata.distribution(name), ("", *requirement.extras)))
    return found


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_media(tmp_path / "clip.mkv", frames=32, size=(16, 16), sound=tone(4.0))


def test_the_runtime_extra_asks_for_no_torch_and_streams_with_what_it_asks_for(tmp_path: Path, media: Path) -> None:
    command = [sys.executable, "-c", METADATA, tmp_path]
    built = subprocess.run(command, cwd=copied(tmp_path / "project"), capture_output=True, text=True, check=True)
    names = brought(importlib.metadata.Distribution.at(tmp_path / built.stdout.split()[-1]), "runtime")
    assert names >= NEEDED
    assert not names & HEAVY

    tops = importlib.metadata.packages_distributions()
    tops.pop("mirasol", None)  # the code under test, also where an older .venv has another name for it
    refused = [top for top, owners in tops.items() if not names & set(map(canonicalize_name, owners))]
    assert "torch" in refused
    only = [sys.executable, "-c", ONLY, json.dumps(refused)]
    streams(only, only, media, dict(os.environ))


def streams(python: list[str | Path], module: list[str | Path], media: Path, env: dict[str, str]) -> None:
    """Answer and stream a file, on the command line (``module``) and from Python (``python``)."""
    example = EXAMPLE.format(bundle=str(tiny_bundle()), media=str(media), question=QUESTION)
    for command in (
        [*module, "answer", media, QUESTION, "--bundle", tiny_bundle()],
        [*module, "stream", media, "--ask", QUESTION, "--fast", "--bundle", tiny_bundle()],
        [*python, "-c", example],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=media.parent, env=env)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout


@pytest.mark.slow
def test_the_runtime_extra_brings_no_torch_and_streams(tmp_path: Path, media: Path) -> None:
    project = copied(tmp_path / "project")
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
    assert names >= NEEDED
    assert not names & HEAVY
    streams([python], [tmp_path / "venv" / "bin" / "mirasol"], media, {"PATH": "/usr/bin:/bin"})
