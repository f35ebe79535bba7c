"""The examples that use onnxruntime and the contract alone, in Python and in C++."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundle import tiny_bundle

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = [sys.executable, "-I", str(EXAMPLES / "onnx_consumer.py")]  # -I: neither PYTHONPATH nor the folder helps


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    compiler = os.environ.get("CXX", "g++")
    for tool in (compiler, "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: on Debian and Ubuntu `apt-get install g++ make`")
    out = tmp_path_factory.mktemp("examples")
    command = ["make", "-C", str(EXAMPLES), f"PYTHON={sys.executable}", f"OUT={out}", f"CXX={compiler}"]
    done = subprocess.run([*command, "CXXFLAGS=-O1 -Wall -Wextra -Werror"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(out / "onnx_consumer")]


@pytest.fixture(params=["python", "c++"])
def example(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = PYTHON if request.param == "python" else request.getfixturevalue("compiled")
    return command


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def run(example: list[str], bundle: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    return subprocess.run([*example, str(bundle)], capture_output=True, text=True, env=environment)


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Another file under a hash that fits."""
    (bundle / name).write_bytes(content)
    contract = json.loads((bundle / "contract.json").read_text())
    contract["files"][name] = hashlib.sha256(content).hexdigest()
    (bundle / "contract.json").write_text(json.dumps(contract))


def change_golden(bundle: Path, **changed: np.ndarray) -> None:
    """As if the graphs computed something else."""
    arrays: dict[str, Any] = dict(np.load(bundle / "golden.npz")) | changed
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    replace(bundle, "golden.npz", buffer.getvalue())


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
def test_it_reproduces_the_golden_outputs(example: list[str], combiner: str) -> None:
    done = run(example, tiny_bundle(combiner))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "largest relative difference to PyTorch" in done.stdout


@pytest.mark.parametrize("name", ["text_step.opset23.onnx", "golden.npz"])
def test_it_refuses_a_file_with_one_bit_changed(example: list[str], bundle: Path, name: str) -> None:
    flip(bundle / name, at=(bundle / name).stat().st_size // 2)
    done = run(example, bundle)
    assert done.returncode == 2
    assert f"{name} is not the file that was exported" in done.stderr


@pytest.mark.parametrize("name", ["audio", "logits"])
def test_it_tells_outputs_that_differ(example: list[str], bundle: Path, name: str) -> None:
    golden = np.load(bundle / "golden.npz")[name]
    golden[-1].flat[-1] += 1e-3 * np.abs(golden).max()
    change_golden(bundle, **{name: golden})
    done = run(example, bundle)
    assert done.returncode == 1, done.stderr + done.stdout


def test_outputs_that_are_no_numbers_differ(example: list[str], bundle: Path) -> None:
    memory = np.load(bundle / "golden.npz")["memory"]
    change_golden(bundle, memory=np.full_like(memory, np.nan))
    assert run(example, bundle).returncode == 1


def test_it_refuses_a_graph_that_onnxruntime_cannot_load(example: list[str], bundle: Path) -> None:
    replace(bundle, "latent_step.onnx", b"no graph")
    done = run(example, bundle)
    assert done.returncode == 2
    assert "latent_step.onnx failed" in done.stderr


def test_it_refuses_another_version(example: list[str], bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    (bundle / "contract.json").write_text(json.dumps(contract | {"version": 3}))
    done = run(example, bundle)
    assert done.returncode == 2
    assert "version" in done.stderr


@pytest.mark.parametrize("text", [None, "{"], ids=["missing", "no json"])
def test_it_refuses_what_is_no_bundle(example: list[str], tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "contract.json").write_text(text)
    done = run(example, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "the bundle cannot be read" in done.stderr


def test_the_python_example_is_short_and_imports_neither_mirasol_nor_torch() -> None:
    lines = (EXAMPLES / "onnx_consumer.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    imported = [line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))]
    assert set(imported) <= {"__future__", "hashlib", "json", "os", "sys", "pathlib", "numpy", "onnxruntime"}


def test_the_program_in_cpp_is_short() -> None:
    assert len((EXAMPLES / "onnx_consumer.cpp").read_text(encoding="utf-8").splitlines()) < 150
