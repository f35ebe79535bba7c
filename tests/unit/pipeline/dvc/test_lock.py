"""One run per workspace: the second waits and names the first, or fails clearly."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.lock import hold

HOLDER = """
import sys, time
from mirasol.pipeline.dvc.lock import hold
with hold(sys.argv[1], "pipeline"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(root: Path, seconds: float) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(root), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_second_waits_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with _holder(tmp_path, 1.0) as child:
        start = time.monotonic()
        with hold(tmp_path, "ingest", wait=20, say=said.append):
            assert time.monotonic() - start > 0.3
        assert len(said) == 1
        assert f"`pipeline` (process {child.pid}" in said[0]


def test_without_patience_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    with _holder(tmp_path, 60) as child:
        with (
            pytest.raises(MirasolError, match=r"in use by `pipeline`.*mirasol workspace NAME"),
            hold(tmp_path, "x", wait=0),
        ):
            pass
        child.kill()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    with _holder(tmp_path, 60) as child:
        child.kill()
    with hold(tmp_path, "pipeline", wait=2):
        pass
