"""`make dist`: the files of a release."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.scratch import copy_repository, start_git

import mirasol
from mirasol.runtime.contract import read_contract

WHEEL = f"mirasol_av-{mirasol.__version__}-py3-none-any.whl"
SOURCES = f"mirasol_av-{mirasol.__version__}.tar.gz"
BUNDLE, SUMS = "mirasol-try.tar.gz", "SHA256SUMS"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` fills."""
    root = copy_repository(tmp_path_factory.mktemp("release"), leave=("tests/", "docs/", "reports/"))
    start_git(root)
    (root / "src/mirasol/not_committed.py").touch()
    command = ["make", "--old-file=setup", "dist", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root / "dist"


def test_every_file_has_its_sum(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {WHEEL, SOURCES, BUNDLE, SUMS}
    sums = {WHEEL, SOURCES, BUNDLE}
    listed = dict(reversed(line.split()) for line in (dist / SUMS).read_text().splitlines())
    assert listed == {name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in sums}


def test_the_wheel_holds_the_last_commit(dist: Path) -> None:
    names = zipfile.ZipFile(dist / WHEEL).namelist()
    assert "mirasol/try/contract.json" in names and "mirasol/not_committed.py" not in names


def test_the_bundle_is_whole(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / BUNDLE) as tar:
        tar.extractall(tmp_path, filter="data")
    assert read_contract(tmp_path / "try").sha256
