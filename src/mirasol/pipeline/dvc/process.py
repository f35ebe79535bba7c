"""Run a command and read it line by line, so that nothing it started outlives us.

Between us and the command stands a small supervisor (this module run as a program). It leads a
process group of its own and holds the reading end of a pipe whose writing end is ours alone. When
we end it on purpose, get Ctrl-C or SIGTERM, or are killed outright, that pipe closes: the supervisor
then ends every process below it, politely first. A signal sent to `dvc` alone would orphan the stage
it runs; and a parent-death signal would reach `dvc` but not the stage's loader processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

OnLine = Callable[[str], None]

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL: time to close files, not to finish the work."""

_PACKAGES = str(Path(__file__).resolve().parents[2])


@contextlib.contextmanager
def supervised(
    command: Sequence[str],
    *,
    output: int | IO[Any] = subprocess.PIPE,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
    keep_open: Sequence[int] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` beside us inside the ``with`` block; at its end nothing of it is left.

    Standard output and standard error go to ``output`` together, in the order written; standard
    input is empty. The process that is handed out is the supervisor: its exit status is the
    command's, 128 + N if that died of signal N.

    Args:
        env: the command's whole environment; ours if ``None``.
        grace: seconds between SIGTERM and SIGKILL.
        keep_open: file descriptors (locks) that stay open until the last process is gone, even
            when we are killed. The command itself does not get them.

    Raises:
        FileNotFoundError: the program or ``cwd`` does not exist.
    """
    environment = os.environ if env is None else env
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise FileNotFoundError(f"no such program: {command[0]}")
    lifeline, ours = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _SUPERVISOR, str(lifeline), str(grace), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=cwd,
            env=environment,
            pass_fds=(lifeline, *keep_open),
            process_group=0,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(lifeline)
    try:
        yield child
    finally:
        os.close(ours)
        if child.stdout:
            with child.stdout:
                for _ in child.stdout:  # last words: nobody may block on a full pipe
                    pass
        if child.wait() < 0:  # somebody killed the supervisor: do its last duty
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def stream(
    command: Sequence[str],
    on_line: OnLine,
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
    keep_open: Sequence[int] = (),
) -> int:
    """Run ``command`` to its end and hand each line of its output to ``on_line`` as it comes.

    If ``on_line`` raises, or this thread is interrupted, everything the command started is ended
    before the exception goes on. What the command leaves running when it exits is ended too.
    Arguments and errors are those of `supervised`.

    Returns:
        The exit status, 128 + N for a command that died of signal N.
    """
    with supervised(command, cwd=cwd, env=env, grace=grace, keep_open=keep_open) as child:
        assert child.stdout is not None
        for line in child.stdout:
            on_line(line.rstrip())
        code = child.wait()
    return code if code >= 0 else 128 - code


_SUPERVISOR = (
    f"import sys; sys.path.insert(0, {_PACKAGES!r}); from mirasol.pipeline.dvc.process import supervise; supervise()"
)


class _Stopped(BaseException):
    """A signal to the supervisor, or the end of its parent."""


def supervise() -> None:
    """The supervisor: ``LIFELINE GRACE COMMAND…`` in ``sys.argv``; exits with the command's status."""
    lifeline, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    _adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    code = 128 + signal.SIGTERM
    first = 0
    try:
        child = subprocess.Popen(command)
        first = child.pid
        threading.Thread(target=_stop_with_parent, args=(lifeline,), daemon=True).start()
        code = child.wait()
    except _Stopped as stopped:
        code = 128 + int(stopped.args[0])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _end_descendants(first, grace)
    sys.exit(code if code >= 0 else 128 - code)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def _stop_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: returns when the last writer is gone
    os.kill(os.getpid(), signal.SIGTERM)


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that one with a session of its own is found."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _end_descendants(first: int, grace: float) -> None:
    """End every process below this one: asked at once, killed after ``grace`` seconds.

    The command itself, process ``first``, is asked by SIGINT. DVC ignores that while a stage runs, sees
    the stage end and closes its books; SIGTERM can strike while it writes its lock file, and leaves half
    a file that stops every later run.
    """
    for kill, patience in ((False, grace), (True, 5.0)):
        told: set[int] = set()
        deadline = time.monotonic() + patience
        while left := _descendants():
            for pid in left - told:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGINT if pid == first else signal.SIGTERM)
            told |= left
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _descendants() -> set[int]:
    """Living processes below this one; those that have ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    parents = _parents()
    found: set[int] = set()
    grown = {os.getpid()}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown}
        found |= grown
    return found


def _parents() -> dict[int, int]:
    """Process -> its parent, for all living processes."""
    table: dict[int, int] = {}
    if Path("/proc/self/stat").exists():
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    # "pid (name) state parent …", and a name may hold spaces and brackets
                    state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        table[int(entry.name)] = int(parent)
    else:
        listing = subprocess.run(["ps", "-Ao", "pid=,ppid=,state="], capture_output=True, text=True, check=False)
        for line in listing.stdout.splitlines():
            pid, parent, state = line.split()[:3]
            if not state.startswith("Z"):
                table[int(pid)] = int(parent)
    return table
