"""The sessions of the service, and the one thread in which all of them compute.

One thread, a chunk or a token at a time: sessions take turns, none can starve another, an engine is never called
twice at once, and what waits is bounded by the number of sessions. The engine has its own threads inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import check_question
from mirasol.runtime.backends import Array
from mirasol.runtime.engine import Engine
from mirasol.runtime.influence import answer_tokens, influences
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk
from mirasol.serve.limits import Limits
from mirasol.serve.metrics import Metrics
from mirasol.serve.uploads import Media, Summary

P = ParamSpec("P")
R = TypeVar("R")
ID_BYTES = 24  # of chance in a session's name: who knows it may use the session
SWEEP_SECONDS = 1.0


class FullError(MirasolError):
    """There are as many sessions as there may be."""


class Basis(NamedTuple):
    """What an answer was given from."""

    memory: Array  # [1, R*m, d]
    valid: Array  # [1, R*m]
    chunks: int  # that the stream had taken in


class ClientSession:
    """One client's session: at most one upload, at most one connection, one stream."""

    def __init__(self, limits: Limits) -> None:
        self.id = secrets.token_urlsafe(ID_BYTES)
        self.limits = limits
        self.media: Media | None = None
        self.summary: Summary | None = None
        self.stream: Session | None = None
        self.basis: Basis | None = None  # of the last answer
        self.complete = False  # whether the model ended that answer itself
        self.over = asyncio.Event()  # it has ended
        self.busy = 0  # what is under way: an upload, a connection, an answer
        self.lock = asyncio.Lock()  # one change of the stream at a time
        self.touched = time.monotonic()

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    @property
    def idle(self) -> bool:
        return not self.busy and time.monotonic() - self.touched > self.limits.idle_seconds

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.touched = time.monotonic()


class SessionManager:
    """Sessions over ``engine``; :meth:`run` is its life."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits, self.metrics = engine, limits, Metrics()
        self.visits: dict[str, ClientSession] = {}
        self.folder = Path()  # of the uploads
        self._compute = ThreadPoolExecutor(1, "mirasol-compute")
        self._decode = ThreadPoolExecutor(limits.sessions, "mirasol-decode")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Have a folder for uploads and sweep up what clients leave behind; all of it ends with the service."""
        self.folder = Path(tempfile.mkdtemp(prefix="mirasol-serve-"))
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            for visit in list(self.visits.values()):
                self.end(visit)
            shutil.rmtree(self.folder, ignore_errors=True)
            self._compute.shutdown(cancel_futures=True)
            self._decode.shutdown(wait=False, cancel_futures=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self.limits.idle_seconds))
            for visit in [visit for visit in self.visits.values() if visit.idle]:
                self.end(visit)

    def begin(self) -> ClientSession:
        """A new session.

        Raises:
            FullError: there are ``limits.sessions`` of them.
        """
        if len(self.visits) >= self.limits.sessions:
            raise FullError(f"all {self.limits.sessions} sessions are taken: try again later")
        visit = ClientSession(self.limits)
        self.visits[visit.id] = visit
        self.metrics.begun.inc()
        self.metrics.sessions.set(len(self.visits))
        return visit

    def end(self, visit: ClientSession) -> None:
        """Forget a session, its file and its stream; its connection closes."""
        visit.over.set()
        self.visits.pop(visit.id, None)
        self.metrics.sessions.set(len(self.visits))
        if visit.media is not None:
            visit.media.close()
        visit.media = visit.stream = visit.basis = None

    async def compute(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        """``function`` in the thread that computes."""
        return await asyncio.wrap_future(self._compute.submit(function, *arguments, **keywords))

    async def upload(self, visit: ClientSession, path: Path) -> Summary:
        """Take ``path`` as the session's file, which is then the session's to remove.

        Raises:
            MediaError: it cannot be used; it is removed.
        """
        media = Media(path, self.engine.contract.clip, self.limits, self._decode)
        if visit.media is not None:
            visit.media.close()
        visit.media, visit.stream, visit.summary = media, None, None
        try:
            visit.summary = await media.open()
        except BaseException:
            media.close()
            visit.media = None
            raise
        if visit.ended:
            media.close()
            raise gone()
        return visit.summary

    async def start(self, visit: ClientSession) -> float:
        """A new stream from the beginning of the upload, or of a camera without one; seconds of its chunks.

        Raises:
            MediaError: the file cannot be read again.
            MirasolError: the session has ended.
        """
        async with visit.lock:
            if visit.ended:
                raise gone()
            if visit.media is not None and not visit.media.fresh:
                visit.summary = await visit.media.open()
            seconds = visit.summary.chunk_seconds if visit.summary else self.engine.contract.clip.chunk_seconds
            visit.stream = await self.compute(Session, self.engine, seconds)
            return seconds

    async def push(self, visit: ClientSession, chunk: Chunk) -> float:
        """Take in a chunk; how long that took, in seconds, waiting for others included."""
        async with visit.lock:
            if visit.stream is None:
                raise gone()
            began = time.perf_counter()
            await self.compute(visit.stream.push, chunk.video, chunk.samples)
            seconds = time.perf_counter() - began
        self.metrics.chunk.observe(seconds)
        return seconds

    async def answer(self, visit: ClientSession, question: str) -> AsyncIterator[str]:
        """The answer piece by piece; then ``visit.complete`` says whether the model has ended it.

        Raises:
            MirasolError: there is nothing to ask about, or the question is empty or too long.
        """
        check_question(self.engine, question)
        async with visit.lock:
            if visit.stream is None:
                raise MirasolError("there is nothing to ask about yet: send a chunk, or upload a file and play it")
            began = time.perf_counter()
            visit.basis = Basis(*visit.stream.memory, visit.stream.chunks)
            pieces = visit.stream.ask_stream(question)
            while isinstance(piece := await self.compute(following, pieces), str):
                yield piece
            visit.complete = piece
            self.metrics.answer.observe(time.perf_counter() - began)

    async def influence(self, visit: ClientSession, question: str) -> dict[str, object]:
        """The last answer's tokens, and what each loses without each chunk remembered then (``serve.influence``)."""
        if visit.basis is None:
            raise gone()
        memory, valid, chunks = visit.basis
        ids, scores = await self.compute(answer_tokens, self.engine, question, memory, valid)
        places = influences(self.engine, question, ids, scores, memory, valid)
        rows: list[list[float] | None] = []
        for _ in range(self.engine.contract.model.max_chunks):
            rows.append(await self.compute(next, places))
        texts = [self.engine.tokenizer.decode(ids[: i + 1]) for i in range(len(ids))]
        first = chunks - len(rows)
        return {
            "tokens": [text[len(before) :] for before, text in zip(["", *texts], texts, strict=False)],
            "chunks": [
                {"index": first + i, "loss": None if row is None else [round(value, 4) for value in row]}
                for i, row in enumerate(rows)
                if first + i >= 0
            ],
        }


def following(pieces: Generator[str, None, bool]) -> str | bool:
    """The next piece of an answer; at its end, whether the model has ended it."""
    try:
        return next(pieces)
    except StopIteration as end:
        return bool(end.value)


def gone() -> MirasolError:
    """What somebody is told whose session was ended meanwhile."""
    return MirasolError("the session has ended")
