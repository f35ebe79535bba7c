"""Work on untrusted media in a process of its own, that may crash, hang or run out of memory.

Each thread that calls :func:`sandboxed` has one such process, started at the first call and kept: a call costs a
message there and one back. After a file that killed it the next call starts a new one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mirasol.core.errors import MirasolError
from mirasol.media.container import MediaError

STALL_SECONDS = 60.0  # without a packet read, a frame decoded or one encoded
FILE_SECONDS = 3600.0  # of one call
MEMORY = 4 << 30  # bytes of address space, besides what results are known to take
START_SECONDS = 120.0  # until a new process has loaded its libraries
BEAT_SECONDS = 1.0  # between two signs of life
GLANCE_SECONDS = 0.25  # after which a thread looks whether anybody still wants its result
FROM_OUTSIDE = ("SIGKILL", "SIGTERM")  # no fault of the file: its memory is limited
CHILD = "import sys; sys.path[:] = {path!r}; from mirasol.media.sandbox import serve; serve({channel})"

P = ParamSpec("P")
R = TypeVar("R")
_of_this_thread = threading.local()


def sandboxed(function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """``function(*arguments)``, a function of a module, called in this thread's guarded process.

    What it raises is raised here.

    Raises:
        MediaError: the process crashed, gave no sign of life (:func:`heartbeat`) for STALL_SECONDS, or took more
            than FILE_SECONDS. The file is not named: the caller knows it.
        MirasolError: the process was killed from outside, and so was a second one. Names ``arguments``.
        CancelledError: nobody wants the result any more (:func:`stop_with`).
    """
    try:
        return _guard().call(function, arguments, keywords)  # type: ignore[no-any-return]
    except _KilledError:
        pass  # it may have had bad luck: memory that another process needed
    try:
        return _guard().call(function, arguments, keywords)  # type: ignore[no-any-return]
    except _KilledError as error:
        raise MirasolError(
            f"the process that decodes was killed twice ({error}), out of memory? Lower shards.workers, or take "
            f"the file out. It was working on {_named(arguments)}"
        ) from error


def stop_with(stop: threading.Event) -> None:
    """Calls of this thread end when ``stop`` is set, with their process: a film may take an hour."""
    _of_this_thread.stop = stop


class _KilledError(Exception):
    """The guarded process was killed by the system or by somebody, and not by us."""


def _guard() -> Guard:
    guard: Guard | None = getattr(_of_this_thread, "guard", None)
    if guard is None or not guard.alive:
        guard = _of_this_thread.guard = Guard()
    return guard


def _named(arguments: tuple[Any, ...]) -> str:
    """The files and clips among ``arguments``."""
    paths = [str(a) for a in arguments if isinstance(a, str | Path)]
    listed = [item for a in arguments if isinstance(a, list) for item in a]
    clips = [f"{item.media} [{item.key}]" for item in listed if hasattr(item, "media") and hasattr(item, "key")]
    return ", ".join(paths + clips[:10])


class Guard:
    """One process that does what :meth:`call` says."""

    def __init__(self) -> None:
        self._channel, theirs = multiprocessing.Pipe()
        code = CHILD.format(path=sys.path, channel=theirs.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self.close = weakref.finalize(self, _end, self._channel, self._process)
        try:
            ready = self._channel.poll(START_SECONDS) and self._channel.recv() is None
        except (EOFError, OSError):
            ready = False
        if not ready:
            death = self._death()
            if isinstance(death, _KilledError):
                raise death
            raise RuntimeError(f"{sys.executable} could not start the process that decodes")

    @property
    def alive(self) -> bool:
        return self.close.alive and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """As :func:`sandboxed`, once."""
        try:
            kind, value = self._exchange((function.__module__, function.__qualname__, arguments, keywords))
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        except BaseException:
            self.close()  # hung, or Ctrl-C here: what it sends next would belong to nobody
            raise
        if kind == "raised":
            raise value
        return value

    def _exchange(self, task: tuple[Any, ...]) -> tuple[str, Any]:
        """Send a task and wait for the answer, as long as there are signs of life."""
        until = time.monotonic() + FILE_SECONDS
        quiet = 0.0  # seconds that were waited, not those of the clock: Ctrl-Z stops both processes, and is no hang
        stop: threading.Event | None = getattr(_of_this_thread, "stop", None)
        self._channel.send(task)
        while stop is None or not stop.is_set():
            wait = min(GLANCE_SECONDS, STALL_SECONDS, until - time.monotonic())
            if wait <= 0:
                raise MediaError(f"the decoder took more than {FILE_SECONDS:g} s")
            if self._channel.poll(wait):
                answer: tuple[str, Any] | None = self._channel.recv()
                if answer is not None:
                    return answer
                quiet = 0.0
            elif (quiet := quiet + wait) >= STALL_SECONDS:
                raise MediaError(f"the decoder hung: nothing was read or decoded for {STALL_SECONDS:g} s")
        raise CancelledError

    def _death(self) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll() or 0
        self.close()
        died = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return _KilledError(died) if died in FROM_OUTSIDE else MediaError(f"the decoder crashed ({died})")


def _end(channel: Connection, process: subprocess.Popen[bytes]) -> None:
    channel.close()
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel ends when it can
        process.wait(5)


# What follows runs in the guarded process; elsewhere `heartbeat` and `need_memory` do nothing.

_to_parent: Connection | None = None
_last_beat = 0.0


def heartbeat() -> None:
    """A sign of life, from wherever work on a file makes progress."""
    global _last_beat
    if _to_parent is not None and time.monotonic() - _last_beat > BEAT_SECONDS:
        _last_beat = time.monotonic()
        _to_parent.send(None)


def need_memory(size: int) -> None:
    """Limit the process to MEMORY and ``size`` bytes for results whose size is known."""
    if _to_parent is not None and sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = MEMORY + size if most == resource.RLIM_INFINITY else min(MEMORY + size, most)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def serve(descriptor: int) -> None:
    """Do what comes through the channel, and end with the process at its other end."""
    global _to_parent, _last_beat
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with contextlib.suppress(OSError):  # where memory is short, the system shall end this process first
        Path("/proc/self/oom_score_adj").write_text("500")
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    channel = _to_parent = Connection(descriptor)
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, tasks), daemon=True).start()
    channel.send(None)
    while True:
        task = tasks.get()
        need_memory(0)
        _last_beat = time.monotonic()
        answer = _answer(task)
        try:
            channel.send(answer)
        except ConnectionError:
            os._exit(1)
        except Exception as error:  # a result that cannot be sent
            channel.send(("raised", RuntimeError(f"{type(error).__name__}: {error}")))


def _listen(channel: Connection, tasks: queue.SimpleQueue[bytes]) -> None:
    """A thread of its own, so that the parent's end is noticed while a decoder hangs."""
    while True:
        try:
            tasks.put(channel.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)


def _answer(task: bytes) -> tuple[str, Any]:
    try:
        module, name, arguments, keywords = pickle.loads(task)
        function = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        return "returned", function(*arguments, **keywords)  # type: ignore[operator]
    except MemoryError:
        return "raised", MediaError(f"the decoder needs more memory than the {MEMORY >> 20} MiB it may take")
    except Exception as error:
        error.add_note(f"In the guarded process:\n{traceback.format_exc()}")
        return "raised", error
