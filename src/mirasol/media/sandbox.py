"""Decode untrusted media in a separate process, which may crash, hang or run out of memory.

Each thread that calls :func:`sandboxed` keeps one process: a call costs one request and one reply. Hand-written:
``ProcessPoolExecutor`` loses all its jobs with one dead worker, and limits neither the time nor the memory of a call.
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

STALL_SECONDS = 60.0  # without a packet read, or a frame decoded or encoded
FILE_SECONDS = 3600.0  # of one call
MEMORY = 4 << 30  # bytes of address space, without those of results of known size
START_SECONDS = 120.0  # for a new process to load its libraries
BEAT_SECONDS = 1.0  # between two heartbeats
POLL_SECONDS = 0.25  # between two checks whether the call was cancelled
FROM_OUTSIDE = ("SIGKILL", "SIGTERM")  # not the file's fault, because its memory is limited
CHILD = "import sys; sys.path[:] = {path!r}; from mirasol.media.sandbox import serve; serve({channel})"

P = ParamSpec("P")
R = TypeVar("R")
_of_this_thread = threading.local()


def sandboxed(function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """``function(*arguments)``, a function of a module, called in this thread's sandbox. Its exceptions pass through.

    Raises:
        MediaError: the process crashed, gave no :func:`heartbeat` for STALL_SECONDS, or took more than FILE_SECONDS.
            The caller adds the name of the file.
        MirasolError: the process was killed from outside, and so was a second one. Names ``arguments``.
        CancelledError: the call was cancelled (:func:`cancel_on`).
    """
    with contextlib.suppress(_KilledError):  # perhaps another process needed the memory: try again
        return _sandbox().call(function, arguments, keywords)  # type: ignore[no-any-return]
    try:
        return _sandbox().call(function, arguments, keywords)  # type: ignore[no-any-return]
    except _KilledError as error:
        raise MirasolError(
            f"the process that decodes was killed twice ({error}), out of memory? Lower shards.workers, or take "
            f"the file out. It was working on {_named(arguments)}"
        ) from error


def _named(arguments: tuple[Any, ...]) -> str:
    """The files and clips among ``arguments``."""
    paths = [str(a) for a in arguments if isinstance(a, str | Path)]
    listed = [item for a in arguments if isinstance(a, list) for item in a]
    return ", ".join(paths + [f"{item.media} [{item.key}]" for item in listed if hasattr(item, "key")][:10])


def cancel_on(stop: threading.Event) -> None:
    """Cancel this thread's calls when ``stop`` is set, and end their process: a film may take an hour."""
    _of_this_thread.stop = stop


class _KilledError(Exception):
    """The sandbox was killed from outside, by the system or a user."""


def _sandbox() -> Sandbox:
    sandbox: Sandbox | None = getattr(_of_this_thread, "sandbox", None)
    if sandbox is None or not sandbox.alive:
        sandbox = _of_this_thread.sandbox = Sandbox()
    return sandbox


class Sandbox:
    """One process that runs the functions given to :meth:`call`."""

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
            task = (str(Path.cwd()), function.__module__, function.__qualname__, arguments, keywords)
            kind, value = self._exchange(task)
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        except BaseException:
            self.close()  # hung, or Ctrl-C here: its next reply would belong to no call
            raise
        if kind == "raised":
            raise value
        return value

    def _exchange(self, task: tuple[Any, ...]) -> tuple[str, Any]:
        """Send a task and wait for the reply as long as heartbeats come."""
        until = time.monotonic() + FILE_SECONDS
        quiet = 0.0  # seconds of waiting, not of the clock: Ctrl-Z stops both processes and is not a hang
        stop: threading.Event | None = getattr(_of_this_thread, "stop", None)
        self._channel.send(task)
        while stop is None or not stop.is_set():
            wait = min(POLL_SECONDS, STALL_SECONDS, until - time.monotonic())
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in the kernel ends later
        process.wait(5)


# The rest runs in the sandbox; in other processes `heartbeat` and `need_memory` do nothing.

_to_parent: Connection | None = None
_last_beat = 0.0


def heartbeat() -> None:
    """Report progress on a file."""
    global _last_beat
    if _to_parent is not None and time.monotonic() - _last_beat > BEAT_SECONDS:
        _last_beat = time.monotonic()
        _to_parent.send(None)


def need_memory(size: int) -> None:
    """Limit the process to MEMORY and ``size`` bytes for results of known size."""
    if _to_parent is not None:
        import resource  # the sandbox needs POSIX, the rest of this module does not

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = MEMORY + size if most == resource.RLIM_INFINITY else min(MEMORY + size, most)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


def serve(descriptor: int) -> None:
    """Run the tasks of the channel, and end with the process at its other end."""
    global _to_parent, _last_beat
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with contextlib.suppress(OSError):  # if memory is short, the system ends this process first
        Path("/proc/self/oom_score_adj").write_text("500")
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
    """Runs in a separate thread, to notice the parent's end while a decoder hangs."""
    while True:
        try:
            tasks.put(channel.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)


def _answer(task: bytes) -> tuple[str, Any]:
    try:
        folder, module, name, arguments, keywords = pickle.loads(task)
        os.chdir(folder)  # the parent's of now: a relative path means the same file in both
        function = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        return "returned", function(*arguments, **keywords)  # type: ignore[operator]
    except MemoryError:
        return "raised", MediaError(f"the decoder needs more memory than the {MEMORY >> 20} MiB it may take")
    except Exception as error:
        error.add_note(f"In the sandbox:\n{traceback.format_exc()}")
        return "raised", error
