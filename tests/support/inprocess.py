"""`mirasol` and DVC in the process of a test, and what they would replace the process with in a child."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirasol.cli.main import main


@dataclass(frozen=True)
class Done:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


def mirasol(words: list[str], folder: Path) -> Done:
    """Run ``mirasol`` with ``words`` in ``folder``."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _handlers(),
    ):
        patch.chdir(folder)
        patch.setattr("sys.argv", ["mirasol", *words])
        patch.setattr(os, "execv", _in_a_child)
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        else:
            status = 0
    return Done(status, out.getvalue(), err.getvalue())


def python(words: list[str], folder: Path) -> Done:
    """Run Python with ``words`` in ``folder``, in a child."""
    return child([sys.executable, *words], folder)


def dvc(words: list[str], folder: Path) -> Done:
    """Run DVC with ``words`` in ``folder``, in a child."""
    return child([sys.executable, "-m", "dvc", *words], folder)


def child(command: list[str], folder: Path) -> Done:
    """Run ``command`` in ``folder``."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return Done(done.returncode, done.stdout, done.stderr)


def _in_a_child(program: str, words: list[str]) -> None:
    done = child([program, *words[1:]], Path.cwd())
    print(done.out, end="")
    print(done.err, end="", file=sys.stderr)
    raise SystemExit(done.status)


@contextlib.contextmanager
def _handlers() -> Iterator[None]:
    """Keep the handlers of signals that a command may replace."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    held = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, held, strict=True):
            signal.signal(number, handler)
