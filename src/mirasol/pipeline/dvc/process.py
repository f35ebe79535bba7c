"""Run a command and read it line by line, so that nothing that it starts outlives us.

Written by hand because no library ends the grandchildren of a parent that is killed outright.

A small supervisor (this module as a program) runs the command. It leads its own process group and reads a pipe that
only we can write. When we end it, get Ctrl-C or SIGTERM, or are killed, that pipe closes and the supervisor ends
every process below it, politely first. A signal to `dvc` alone would orphan the stage that it runs; a parent-death
signal would reach `dvc` but not the stage's loader processes.
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

_PACKAGES = str(Path(__file__).resolve().parents[3])  # the folder of the package


@contextlib.contextmanager
def supervised(
    command: Sequence[str],
    *,
    output: int | IO[Any] = subprocess.PIPE,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
    keep_open: Sequence[int] = (),
    ended_by: signal.Signals = signal.SIGINT,
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` during the ``with`` block; at its end all its processes are gone.

    Standard output and standard error go to ``output`` together, in the order written; standard input is empty. The
    yielded process is the supervisor: its exit status is the command's, 128 + N if that died of signal N.

    Args:
        env: the command's whole environment; ours if ``None``.
        grace: seconds between SIGTERM and SIGKILL.
        keep_open: file descriptors (locks) that stay open until the last process is gone, even when we are killed.
            The command itself does not inherit them.
        ended_by: the first signal to the command itself; SIGINT as DVC wants it.

    Raises:
        FileNotFoundError: the program or ``cwd`` does not exist.
    """
    environment = os.environ if env is None else env
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise FileNotFoundError(f"no such program: {command[0]}")
    lifeline, ours = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _SUPERVISOR, str(lifeline), str(grace), str(int(ended_by)), *command],
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
                for _ in child.stdout:  # no process may block on a full pipe
                    pass
        if child.wait() < 0:  # the supervisor was killed: end its group for it
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
    ended_by: signal.Signals = signal.SIGINT,
) -> int:
    """Run ``command`` to its end and pass each line of its output to ``on_line`` as it comes.

    If ``on_line`` raises, or this thread is interrupted, everything that the command started ends before the
    exception goes on; so do processes that it leaves running. Arguments and errors are those of `supervised`.

    Returns:
        The exit status, 128 + N for a command that died of signal N.
    """
    with supervised(command, cwd=cwd, env=env, grace=grace, keep_open=keep_open, ended_by=ended_by) as child:
        assert child.stdout is not None
        for line in child.stdout:
            on_line(line.rstrip())
        code = child.wait()
    return code if code >= 0 else 128 - code


_SUPERVISOR = (
    f"import sys; sys.path.insert(0, {_PACKAGES!r}); from mirasol.pipeline.dvc.process import supervise; supervise()"
)


class _Stopped(BaseException):
    """The supervisor got a signal, or its parent ended."""


def supervise() -> None:
    """The supervisor: ``LIFELINE GRACE SIGNAL COMMAND…`` in ``sys.argv``; exits with the command's status."""
    lifeline, grace, ended_by, command = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
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
        _end_descendants(first, grace, ended_by)
    sys.exit(code if code >= 0 else 128 - code)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def _stop_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the last writer is gone: nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that one in another session is found."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _end_descendants(first: int, grace: float, ended_by: int) -> None:
    """End every process below this one: by SIGTERM, after ``grace`` seconds by SIGKILL.

    The command itself, process ``first``, gets ``ended_by``. DVC ignores SIGINT while a stage runs, sees the stage end
    and finishes its records; SIGTERM can hit DVC while it writes its lock file, and half a file stops later runs.
    """
    for kill, patience in ((False, grace), (True, 5.0)):
        signalled: set[int] = set()
        deadline = time.monotonic() + patience
        while left := _descendants():
            for pid in left - signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if kill else ended_by if pid == first else signal.SIGTERM)
            signalled |= left
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _descendants() -> set[int]:
    """Living processes below this one; reaps those that have ended."""
    import psutil

    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    living: set[int] = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.add(process.pid)
    return living
