"""Uploads: written to a file of limited size and decoded in a separate process, which may crash or hang.

Each upload has its own process, so that no client's media share memory with another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError, probe
from mirasol.media.sandbox import Sandbox
from mirasol.runtime.sources.files import Chunk, FileSource
from mirasol.serve.limits import Limits

R = TypeVar("R")
log = logging.getLogger("mirasol.serve")


class Summary(NamedTuple):
    """Properties of an upload, and the length of its chunks."""

    chunk_seconds: float
    seconds: float | None
    has_video: bool
    has_audio: bool


class TooLargeError(MirasolError):
    """An upload exceeds the limit."""


async def save(pieces: AsyncIterator[bytes], path: Path, most: int) -> int:
    """Write ``pieces`` to ``path`` and return their number of bytes; removes the file after any error.

    Raises TooLargeError if more than ``most`` bytes come; no more than that are written.
    """
    size = 0
    try:
        with path.open("wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise TooLargeError(f"the upload is larger than {most} bytes: send a shorter or smaller file")
                await asyncio.to_thread(file.write, piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size


class Upload:
    """The chunks of an uploaded file, decoded one by one on demand."""

    def __init__(self, path: Path, clip: ClipSpec, limits: Limits, threads: Executor) -> None:
        self.path, self._clip, self._limits, self._threads = path, clip, limits, threads
        self._guard: Sandbox | None = None
        self._first: Chunk | None = None
        self._closed = False

    async def open(self) -> Summary:
        """Begin at the first chunk and decode it, to check the file.

        Raises MediaError if the file cannot be used, or its decoder crashes, hangs or wants too much memory.
        """
        summary: Summary = await self._call(begin, self.path, self._clip, self._limits.decoder_bytes)
        self._first = await self._call(following, self._limits.decoder_bytes)
        return summary

    async def chunk(self) -> Chunk | None:
        """The next chunk, None at the end; raises like :meth:`open`."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        found: Chunk | None = await self._call(following, self._limits.decoder_bytes)
        return found

    @property
    def fresh(self) -> bool:
        """Whether the next chunk is the first."""
        return self._first is not None

    def close(self) -> None:
        """End the process and remove the file."""
        self._closed = True
        self._kill()
        self.path.unlink(missing_ok=True)

    async def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._ready)  # not timed: a busy machine may be slow
        future = loop.run_in_executor(self._threads, self._work, function, arguments)
        done, _ = await asyncio.wait({future}, timeout=self._limits.stall_seconds)
        if not done:
            self._kill()
            await asyncio.wait({future})
            future.exception()  # retrieved, and known: the process was killed
            raise MediaError(f"the decoder gave nothing for {self._limits.stall_seconds:g} s")
        try:
            return future.result()
        except MirasolError as error:  # without the server's path of the file
            raise MediaError(str(error).replace(str(self.path), "the upload")) from error
        except Exception as error:
            log.exception("decoding failed")
            why = str(error).replace(str(self.path), "the upload")
            raise MediaError(f"the decoder failed on the upload: {why or type(error).__name__}") from error

    def _ready(self) -> None:
        if self._guard is None or not self._guard.alive:
            self._guard = Sandbox()
        if self._closed:  # meanwhile
            self._guard.close()

    def _work(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> R:
        if self._guard is None or self._closed:
            raise MediaError("the session has ended")
        result: R = self._guard.call(function, arguments, {})
        return result

    def _kill(self) -> None:
        # By its id: the thread that waits for its answer then fails and closes the pipe.
        guard = self._guard
        if guard is not None and guard.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(guard.pid, signal.SIGKILL)


# All that follows runs in the guarded process.

_chunks: Iterator[Chunk] = iter(())


def begin(path: Path, clip: ClipSpec, memory: int) -> Summary:
    """Open ``path``; :func:`following` then returns its chunks."""
    global _chunks
    _limit(memory)
    source = FileSource(path, clip)
    info = probe(path)
    _chunks = iter(source)
    return Summary(source.chunk_seconds, info.duration, info.has_video, info.has_audio)


def following(memory: int) -> Chunk | None:
    """The next chunk of the open file; None at its end."""
    _limit(memory)
    return next(_chunks, None)


def _limit(memory: int) -> None:
    """Lower the guard's memory limit, which fits machines that build shards."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses
            resource.setrlimit(resource.RLIMIT_AS, (memory, most))
