"""The sessions of the service, and the one thread in which they all compute.

The thread takes one chunk or token at a time: sessions take turns, none can starve another, and the queue is bounded
by the number of sessions. The engine has its own threads inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import Answer
from mirasol.runtime.backends import Array
from mirasol.runtime.engine import Engine
from mirasol.runtime.influence import answer_tokens, influences
from mirasol.runtime.releases import RELEASE_FILE
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk
from mirasol.serve.limits import Limits
from mirasol.serve.metrics import Metrics
from mirasol.serve.uploads import Summary, Upload

P = ParamSpec("P")
R = TypeVar("R")
ID_BYTES = 24  # random bytes in a session's key, which is all that a client needs to use it
SWEEP_SECONDS = 1.0


class FullError(MirasolError):
    """The number of sessions is at its limit."""


class Basis(NamedTuple):
    """The memory that an answer rests on."""

    memory: Array  # [1, R*m, d]
    valid: Array  # [1, R*m]
    chunks: int  # pushed before


class ClientSession:
    """One client's session: at most one upload, at most one connection, one stream, one engine to its end."""

    def __init__(self, limits: Limits, engine: Engine, release: str | None) -> None:
        self.id = secrets.token_urlsafe(ID_BYTES)
        self.limits, self.engine, self.release = limits, engine, release
        self.upload: Upload | None = None
        self.summary: Summary | None = None
        self.stream: Session | None = None
        self.basis: Basis | None = None  # of the last answer
        self.answer: Answer | None = None  # the last one
        self.over = asyncio.Event()  # the session has ended
        self.busy = 0  # uploads, connections and answers under way
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
    """All sessions, valid within :meth:`run`; new ones use ``engine``."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.sessions: dict[str, ClientSession] = {}
        self.failed: str | None = None  # the registry's current release, if it could not be loaded
        self._earlier: weakref.ref[Engine] | None = None
        self._engage(engine)
        self.folder = Path()  # of the uploads
        self._compute = ThreadPoolExecutor(1, "mirasol-compute")
        self._decode = ThreadPoolExecutor(limits.sessions, "mirasol-decode")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep a folder for uploads and end idle sessions, until the service ends."""
        self.folder = Path(tempfile.mkdtemp(prefix="mirasol-serve-"))
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            for session in list(self.sessions.values()):
                self.end(session)
            shutil.rmtree(self.folder, ignore_errors=True)
            self._compute.shutdown(cancel_futures=True)
            self._decode.shutdown(wait=False, cancel_futures=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self.limits.idle_seconds))
            for session in [session for session in self.sessions.values() if session.idle]:
                self.end(session)

    def use(self, engine: Engine) -> None:
        """Use ``engine`` for new sessions; open ones keep theirs, and the last of them frees it."""
        self._earlier = weakref.ref(self.engine)
        self._engage(engine)
        self.failed = None
        self.metrics.switches.inc()

    def earlier(self) -> Engine | None:
        """The engine before the present one, while it is in memory."""
        return None if self._earlier is None else self._earlier()

    def _engage(self, engine: Engine) -> None:
        self.engine = engine
        self.release = engine.bundle.name if (engine.bundle / RELEASE_FILE).is_file() else None
        self.metrics.release.clear()
        if self.release:
            self.metrics.release.labels(self.release).set(1)

    def begin(self) -> ClientSession:
        """Begin a session; raises FullError if ``limits.sessions`` of them exist."""
        if len(self.sessions) >= self.limits.sessions:
            raise FullError(f"all {self.limits.sessions} sessions are taken: try again later")
        session = ClientSession(self.limits, self.engine, self.release)
        self.sessions[session.id] = session
        self.metrics.begun.inc()
        self.metrics.sessions.set(len(self.sessions))
        return session

    def end(self, session: ClientSession) -> None:
        """End a session: delete its file and stream, close its connection."""
        session.over.set()
        self.sessions.pop(session.id, None)
        self.metrics.sessions.set(len(self.sessions))
        if session.upload is not None:
            session.upload.close()
        session.upload = session.stream = session.basis = None

    async def compute(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        """Run ``function`` in the computing thread."""
        return await asyncio.wrap_future(self._compute.submit(function, *arguments, **keywords))

    async def upload(self, session: ClientSession, path: Path) -> Summary:
        """Make ``path`` the session's file, removed at its end, or at once with a MediaError if it cannot be used."""
        upload = Upload(path, session.engine.contract.clip, self.limits, self._decode)
        if session.upload is not None:
            session.upload.close()
        session.upload, session.stream, session.summary = upload, None, None
        try:
            session.summary = await upload.open()
        except BaseException:
            upload.close()
            session.upload = None
            raise
        if session.ended:
            upload.close()
            raise gone()
        return session.summary

    async def start(self, session: ClientSession) -> float:
        """Begin a stream of the upload, or of a camera if none exists; returns the seconds of a chunk.

        Raises MirasolError if the file cannot be read again, or the session has ended.
        """
        async with session.lock:
            if session.ended:
                raise gone()
            if session.upload is not None and not session.upload.fresh:
                session.summary = await session.upload.open()
            seconds = session.summary.chunk_seconds if session.summary else session.engine.contract.clip.chunk_seconds
            session.stream = await self.compute(Session, session.engine, seconds)
            return seconds

    async def push(self, session: ClientSession, chunk: Chunk) -> float:
        """Push a chunk; returns the seconds that it took, including the wait for other sessions."""
        async with session.lock:
            if session.stream is None:
                raise gone()
            began = time.perf_counter()
            await self.compute(session.stream.push, chunk.video, chunk.samples)
            seconds = time.perf_counter() - began
        self.metrics.chunk.observe(seconds)
        return seconds

    def check_question(self, session: ClientSession, question: str) -> None:
        """Raise MirasolError for a question that is empty, or longer than the limits or the text cache allow."""
        most = self.limits.question_characters
        if len(question) > most:
            raise MirasolError(f"the question has {len(question)} characters, {most} are allowed: ask a shorter one")
        session.engine.check_question(question)

    async def answer(self, session: ClientSession, question: str) -> AsyncIterator[str]:
        """Yield the answer piece by piece, then set ``session.answer``.

        Raises MirasolError if the session has no stream yet, or the question is empty or too long.
        """
        self.check_question(session, question)
        async with session.lock:
            if session.stream is None:
                raise MirasolError("nothing to ask about yet: send a chunk, or upload a file and play it")
            began = time.perf_counter()
            session.basis = Basis(*session.stream.memory, session.stream.chunks)
            pieces = session.stream.ask_stream(question)
            while isinstance(piece := await self.compute(following, pieces), str):
                yield piece
            session.answer = piece
            self.metrics.answer.observe(time.perf_counter() - began)

    async def influence(self, session: ClientSession, question: str) -> dict[str, object]:
        """Tokens of the last answer, and the loss of each without each chunk (:mod:`mirasol.runtime.influence`)."""
        if session.basis is None:
            raise gone()
        engine, (memory, valid, chunks) = session.engine, session.basis
        ids, scores = await self.compute(answer_tokens, engine, question, memory, valid)
        places = influences(engine, question, ids, scores, memory, valid)
        rows: list[list[float] | None] = []
        for _ in range(engine.contract.model.max_chunks):
            rows.append(await self.compute(next, places))
        texts = [engine.tokenizer.decode(ids[: i + 1]) for i in range(len(ids))]
        first = chunks - len(rows)
        return {
            "tokens": [text[len(before) :] for before, text in zip(["", *texts], texts, strict=False)],
            "chunks": [
                {"index": first + i, "loss": None if row is None else [round(value, 4) for value in row]}
                for i, row in enumerate(rows)
                if first + i >= 0
            ],
        }


def following(pieces: Generator[str, None, Answer]) -> str | Answer:
    """The next piece of an answer; after the last, the answer."""
    try:
        return next(pieces)
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def facts_of(answer: Answer) -> dict[str, Any]:
    """The parts of a reply that an answer gives besides its text."""
    flags = [flag.text for flag in answer.flags]
    return {"complete": answer.complete, "score": round(answer.score, 6), "flags": flags}


def gone() -> MirasolError:
    """The error for a session that has ended."""
    return MirasolError("the session has ended")
