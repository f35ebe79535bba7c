"""A command's lines arrive as they come, and nothing that it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.scratch import LIMIT, wait_gone, wait_until

from mirasol.pipeline.dvc.process import stream, supervised

SLEEPER = "import time; time.sleep(300)"
# Starts a worker in a session of its own and writes both pids; what follows says whether it waits for it.
FAMILY = f"""
import os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
part = pathlib.Path(sys.argv[1] + ".part")
part.write_text(f"{{os.getpid()}} {{worker.pid}}")
part.rename(sys.argv[1])
print("started", flush=True)
"""


def _pids(path: Path) -> list[int]:
    wait_until("the family", path.exists)
    return [int(pid) for pid in path.read_text().split()]


def test_both_streams_arrive_in_order() -> None:
    lines: list[str] = []
    code = stream(["sh", "-c", "echo one; echo two >&2; printf 'three\\rfour'"], lines.append)
    assert (code, lines) == (0, ["one", "two", "three", "four"])


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_status_is_the_commands(command: str, status: int) -> None:
    assert stream(["sh", "-c", command], print) == status


def test_a_line_arrives_before_the_end(tmp_path: Path) -> None:
    # The command ends well only if its line was read while it ran.
    wait = f"for i in $(seq {10 * LIMIT:.0f}); do test -e '{tmp_path}/read' && exit 0; sleep 0.1; done; exit 1"
    assert stream(["sh", "-c", f"echo now; {wait}"], lambda _: (tmp_path / "read").touch()) == 0


def test_missing_program_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        stream(["no-such-program"], print)


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    stream([sys.executable, "-c", FAMILY, str(tmp_path / "pids")], print)
    wait_gone(_pids(tmp_path / "pids"), 0.5)


def test_an_error_of_the_reader_ends_everything(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="started"):
        stream([sys.executable, "-c", FAMILY + "worker.wait()", str(tmp_path / "pids")], refuse)
    wait_gone(_pids(tmp_path / "pids"), 0.5)


def test_a_command_that_ignores_signals_is_killed() -> None:
    stubborn = f"import signal; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print(1, flush=True); {SLEEPER}"
    with supervised([sys.executable, "-c", stubborn], grace=0.3) as child:
        assert child.stdout is not None and child.stdout.readline() == "1\n"
    assert child.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_our_own_death_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", FAMILY + "worker.wait()", str(tmp_path / "pids")]
    script = f"from mirasol.pipeline.dvc.process import stream; stream({command!r}, print)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as parent:
        pids = _pids(tmp_path / "pids")
        os.kill(parent.pid, number)
    wait_gone(pids)


def test_descriptors_stay_open_until_the_last_process_is_gone(tmp_path: Path) -> None:
    # The lock of a workspace must not be free while a killed run's stage still writes.
    reader, writer = os.pipe()
    end = "signal.signal(2, lambda *_: (time.sleep(1), exit()))"
    slow = f"import signal, time; {end}; print(1, flush=True); signal.pause()"
    script = (
        "from mirasol.pipeline.dvc.process import stream\n"
        f"stream([{sys.executable!r}, '-c', {slow!r}], lambda _: print('up', flush=True), keep_open=[{writer}])"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, pass_fds=[writer], stdout=subprocess.PIPE, text=True) as parent:
        os.close(writer)
        assert parent.stdout is not None and parent.stdout.readline() == "up\n"
        start = time.monotonic()
        parent.kill()
        parent.wait()
        assert os.read(reader, 1) == b""  # end of file: the last holder is gone
    os.close(reader)
    assert time.monotonic() - start > 0.5
