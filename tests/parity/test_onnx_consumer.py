"""The example that uses onnxruntime and the contract alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle import tiny_bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_consumer.py"


def run(bundle: Path) -> subprocess.CompletedProcess[str]:
    # -I: neither the package's folder nor the environment helps
    return subprocess.run([sys.executable, "-I", str(EXAMPLE), str(bundle)], capture_output=True, text=True)


@pytest.mark.parametrize("combiner", ["transformer", "ttm"])
def test_it_reproduces_the_golden_outputs(combiner: str) -> None:
    done = run(tiny_bundle(combiner))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "largest relative difference to PyTorch" in done.stdout


def test_it_refuses_a_changed_file(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))
    (bundle / "tokenizer.json").write_text("{}")
    done = run(bundle)
    assert done.returncode == 2
    assert "tokenizer.json is not the file that was exported" in done.stdout


def test_it_is_short_and_imports_neither_mirasol_nor_torch() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 100
    imported = [line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))]
    assert set(imported) <= {"__future__", "hashlib", "json", "sys", "pathlib", "numpy", "onnxruntime"}
