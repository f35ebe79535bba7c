"""A source streamed through a session: chunk by chunk, at its own pace or as fast as possible."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

from mirasol.runtime.answer import Answer
from mirasol.runtime.session import Session
from mirasol.runtime.sources.camera import LiveSource
from mirasol.runtime.sources.files import Source

SAME_TIME = 1e-6  # rounding of sums of chunk times


@dataclass(frozen=True)
class Moment:
    """One chunk of a stream, and the answer after it."""

    index: int
    seconds: float  # of the stream, at the end of the chunk
    has_video: bool
    has_audio: bool
    chunk_ms: float  # decoding, features and both steps
    behind: float  # seconds since the chunk was complete; as fast as possible: wall seconds less stream seconds
    state_bytes: int
    answer: Answer | None = None
    answer_ms: float = 0.0


def moments(session: Session, source: Source, ask: str, every: float, *, wait: bool = True) -> Generator[Moment]:
    """Push every chunk of ``source``; ask every ``every`` seconds of stream time, and after the last chunk.

    With ``wait`` a chunk of a file is pushed when a camera would have completed it; on a slow machine the stream falls
    behind and drops nothing. A live source sets its own pace and drops chunks that come too fast. No question is asked
    while the memory holds no video or audio.
    """
    live = isinstance(source, LiveSource)
    began, asked = time.perf_counter(), 0.0
    chunks = iter(source)
    last: Moment | None = None
    while True:
        if wait and not live:
            complete = began + (source.chunk_seconds if last is None else last.seconds + source.chunk_seconds)
            time.sleep(max(0.0, complete - time.perf_counter()))
        start = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            break
        if live:  # the wait for it was not work
            start = time.perf_counter()
            began = start - chunk.end if last is None else began
        session.push(chunk.video, chunk.samples)
        done = time.perf_counter()
        has_video, has_audio, behind = chunk.video is not None, chunk.samples is not None, done - began - chunk.end
        chunk_ms, state = (done - start) * 1e3, session.state_bytes
        moment = Moment(chunk.index, chunk.end, has_video, has_audio, chunk_ms, behind, state)
        if session.remembers and chunk.end - asked >= every - SAME_TIME:
            moment, asked = _asked(session, ask, moment), chunk.end
        yield moment
        last = moment
    if last is not None and last.answer is None and session.remembers:
        yield _asked(session, ask, last)


def _asked(session: Session, question: str, moment: Moment) -> Moment:
    start = time.perf_counter()
    answer = session.ask(question)
    return replace(moment, answer=answer, answer_ms=(time.perf_counter() - start) * 1e3)
