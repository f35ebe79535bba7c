"""The suite passes on any machine: inherited signals, and the script that simulates other machines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.scratch import LIMIT

ROOT = Path(__file__).parents[2]
IGNORED = """
import signal
print(*(name for name in ("SIGINT", "SIGHUP", "SIGTERM") if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN))
"""


def test_children_receive_signals() -> None:
    assert subprocess.run([sys.executable, "-c", IGNORED], stdout=subprocess.PIPE, check=True).stdout.strip() == b""


def test_children_receive_signals_in_a_suite_that_ignores_them() -> None:
    test = f"{Path(__file__).relative_to(ROOT)}::{test_children_receive_signals.__name__}"
    script = 'trap \'\' INT HUP TERM; exec "$0" -m pytest -q -p no:cacheprovider "$1"'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_an_unknown_condition_is_refused() -> None:
    command = [ROOT / "tests" / "tools" / "any_machine.sh", "avx3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, "unknown condition avx3: expected one of plain background" in done.stderr) == (2, True)
