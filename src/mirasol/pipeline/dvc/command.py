"""Commands in a workspace: with its code and our Python, holding its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc.lock import Lock
from mirasol.pipeline.dvc.process import OnLine, stream

TAIL = 15
"""Lines at the end of a command's output that its error message quotes."""

GRACE = 20.0
"""Seconds that an interrupted command gets to end: longer than the guard of a stage needs to cancel its job of Slurm
(`launch.limits.CANCELS`), shorter than the 30 s that Prefect gives a cancelled run."""


class CommandError(MirasolError):
    """A command exited with a status other than 0; the message ends with its last lines of output.

    Attributes:
        code: the exit status.
        tail: those lines.
    """

    def __init__(self, message: str, code: int = 1, tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.tail = tail


def environment(root: str | Path) -> dict[str, str]:
    """Our environment for a command of the workspace ``root``.

    The same Python's `dvc` and `mirasol` come first in PATH, output is not buffered, DVC runs its commands with
    /bin/sh instead of the login shell, and a workspace runs its own code instead of the installed package.
    """
    # a git hook sets GIT_DIR and others for its own repository, not for this one
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env |= {"PYTHONUNBUFFERED": "1", "SHELL": "/bin/sh", "DVC_NO_ANALYTICS": "1"}
    code = Path(root).resolve() / "src"
    if (code / "mirasol").is_dir():
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), env.get("PYTHONPATH", "")]))
    return env


def run(
    root: str | Path,
    command: Sequence[str],
    *,
    on_line: OnLine = print,
    lock: Lock | None = None,
    show: Callable[[str], bool] = bool,
) -> None:
    """Run ``command`` in ``root``, its output line by line to ``on_line``.

    Lines from its own error on (`error: …`) come out only if it succeeds; else they are in the exception alone.

    Args:
        lock: the workspace's lock; the command holds it until its last process is gone.
        show: whether to pass a line on; by default all that are not empty.

    Raises:
        CommandError: its exit status is not 0.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    held: list[str] = []

    def read(line: str) -> None:
        if show(line):
            tail.append(line)
            if held or line.startswith(("error: ", "ERROR: ")):
                held.append(line)
            else:
                on_line(line)

    held_open = (lock.handle,) if lock else ()
    code = stream(command, read, cwd=root, env=environment(root), grace=GRACE, keep_open=held_open)
    if code:
        said = "\n".join(tail) or "(no output)"
        raise CommandError(f"`{' '.join(command)}` failed in {root} (status {code}):\n{said}", code, tuple(tail))
    for line in held:
        on_line(line)


def mirasol(root: str | Path, *arguments: str, on_line: OnLine = print, lock: Lock | None = None) -> None:
    """`mirasol ARGUMENTS…` in the workspace ``root``.

    Raises:
        CommandError: it failed.
    """
    run(root, ["mirasol", *arguments], on_line=on_line, lock=lock)


def capture(root: str | Path, command: Sequence[str]) -> str:
    """Standard output of a short ``command`` in ``root``.

    Raises:
        CommandError: its exit status is not 0; the message ends with its standard error.
    """
    done = subprocess.run(
        command,
        cwd=root,
        env=environment(root),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip()
        message = f"`{' '.join(command)}` failed in {root} (status {done.returncode}):\n{said}"
        raise CommandError(message, done.returncode, tuple(said.splitlines()[-TAIL:]))
    return done.stdout


def git(root: str | Path, *arguments: str) -> str:
    """Standard output of `git ARGUMENTS…` in ``root``, without the last line end.

    Raises:
        CommandError: it failed.
    """
    return capture(root, ["git", *arguments]).rstrip("\n")
