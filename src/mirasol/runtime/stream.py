"""A source streamed through a bundle, at its own speed or as fast as it goes, with a live view."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import check_question
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.camera import LiveSource, open_stream, shown
from mirasol.runtime.sources.files import Source

BARS = "▁▂▃▄▅▆▇█"
SHOWN_CHUNKS, SHOWN_ANSWERS = 48, 6
SAME_TIME = 1e-6  # rounding of sums of chunk times


@dataclass(frozen=True)
class Moment:
    """A chunk that has been taken in, and the answer given after it."""

    index: int
    seconds: float  # of the stream, at the end of the chunk
    has_video: bool
    has_audio: bool
    chunk_ms: float  # decoding, features and both steps
    behind: float  # seconds since the chunk was complete; as fast as possible: wall seconds less stream seconds
    state_bytes: int
    answer: str | None
    answer_ms: float


def moments(session: Session, source: Source, ask: str, every: float, *, wait: bool = True) -> Generator[Moment]:
    """Stream ``source`` through ``session``; ask every ``every`` seconds of stream time, and after the last chunk.

    With ``wait`` a chunk is taken in when a camera would have completed it. No chunk of a file is ever dropped: a
    machine that is too slow falls behind, and says so. A live source has its own pace, and drops what comes too fast.
    While a camera has been away for longer than the memory reaches back nothing is asked.
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
        if live:  # waiting for it was no work
            start = time.perf_counter()
            began = start - chunk.end if last is None else began
        session.push(chunk.video, chunk.samples)
        done = time.perf_counter()
        moment = Moment(
            index=chunk.index,
            seconds=chunk.end,
            has_video=chunk.video is not None,
            has_audio=chunk.samples is not None,
            chunk_ms=(done - start) * 1e3,
            behind=done - began - chunk.end,
            state_bytes=session.state_bytes,
            answer=None,
            answer_ms=0.0,
        )
        if session.remembers and chunk.end - asked >= every - SAME_TIME:
            moment, asked = _asked(session, ask, moment), chunk.end
        yield moment
        last = moment
    if last is not None and last.answer is None and session.remembers:
        yield _asked(session, ask, last)


def stream(
    source: str | Path,
    bundle: str | Path,
    ask: str,
    every: float = 2.0,
    *,
    wait: bool = True,
    threads: int = 0,
    provider: str = "auto",
    console: Console | None = None,
) -> str:
    """Stream a source through a bundle and show, live, what it costs and what it answers; Ctrl-C ends it.

    Args:
        source: a media file, a folder of them, ``synthetic``, a camera device or an RTSP address.
        bundle: the folder that `mirasol stage export` wrote.
        ask: the question.
        every: seconds of stream time between two answers; the last chunk is followed by one in any case.
        wait: play at the source's own speed; else as fast as possible.
        threads: CPU threads; 0 leaves the choice to the engine.
        provider: who computes, as :class:`Engine` knows it.
        console: where to show it, standard output by default. On a terminal a live view, else a line per answer.

    Returns:
        The last answer; empty if it was stopped before there was one.

    Raises:
        MirasolError: the source, the bundle or the provider cannot be used, or the question is too long or empty.
    """
    if every <= 0:
        raise MirasolError(f"--every is {every:g} s, expected more than 0")
    engine = Engine(bundle, threads=threads, provider=provider)
    check_question(engine, ask)
    chunks = open_stream(source, engine.contract.clip)
    view = View(shown(str(source)), ask, chunks.chunk_seconds, wait)
    console = console or Console()
    running = moments(Session(engine, chunks.chunk_seconds), chunks, ask, every, wait=wait)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(running):
        if console.is_terminal:
            with Live(view.render(), console=console, refresh_per_second=12) as live:
                for moment in running:
                    view.add(moment)
                    live.update(view.render())
        else:
            for moment in running:
                view.add(moment)
                if moment.answer is not None:
                    console.print(view.line(moment), markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.print(view.summary(), markup=False, highlight=False, soft_wrap=True)
    if isinstance(chunks, LiveSource) and chunks.dropped:
        console.print(f"{chunks.dropped} chunks came faster than they could be taken in and were dropped")
    return view.answers[-1][1] if view.answers else ""


class View:
    """What is shown of a stream: the last chunks' latencies, whether it keeps up, the last answers."""

    def __init__(self, source: str, ask: str, chunk_seconds: float, wait: bool) -> None:
        self.source, self.ask, self.chunk_seconds, self.wait = source, ask, chunk_seconds, wait
        self.latencies: collections.deque[float] = collections.deque(maxlen=SHOWN_CHUNKS)
        self.answers: collections.deque[tuple[float, str, float]] = collections.deque(maxlen=SHOWN_ANSWERS)
        self.moment: Moment | None = None
        self.busy = 0.0  # seconds spent on chunks

    def add(self, moment: Moment) -> None:
        """Take note of a moment; the one after the last chunk repeats it with an answer."""
        if self.moment is None or moment.index > self.moment.index:
            self.latencies.append(moment.chunk_ms)
            self.busy += moment.chunk_ms / 1e3
        self.moment = moment
        if moment.answer is not None:
            self.answers.append((moment.seconds, moment.answer, moment.answer_ms))

    def line(self, moment: Moment) -> str:
        """An answer on a line of a log."""
        return (
            f"{moment.seconds:8.1f} s  {moment.answer:<16} "
            f"chunk {moment.chunk_ms:.1f} ms, answer {moment.answer_ms:.1f} ms, {self.keeping_up(moment)}"
        )

    def keeping_up(self, moment: Moment) -> str:
        """Behind or ahead of the source, in words. At the source's speed, within one chunk is live."""
        if self.wait and moment.behind < self.chunk_seconds:
            return "live"
        return f"{abs(moment.behind):.1f} s {'behind' if moment.behind > 0 else 'ahead'}"

    def summary(self) -> str:
        """The whole stream on a line."""
        if self.moment is None:
            return "nothing was streamed"
        ratio = self.moment.seconds / max(self.busy, 1e-9)
        return (
            f"{self.moment.seconds:.1f} s in {self.moment.index + 1} chunks, {ratio:.0f} x real time, "
            f"state {self.moment.state_bytes / 1024:.0f} KiB"
        )

    def render(self) -> Panel:
        """The view as it stands."""
        moment = self.moment
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", justify="right")
        facts.add_column()
        if moment is None:
            facts.add_row("", "waiting for the first chunk")
        else:
            senses = " + ".join(n for n, there in (("picture", moment.has_video), ("sound", moment.has_audio)) if there)
            late = moment.behind >= self.chunk_seconds
            facts.add_row("time", f"{moment.seconds:.1f} s, chunk {moment.index + 1} ({senses})")
            facts.add_row("chunk", Text.assemble(f"{moment.chunk_ms:5.1f} ms ", (self._bars(), "cyan")))
            facts.add_row("pace", Text(self.keeping_up(moment), style="bold red" if late else "green"))
            facts.add_row("state", f"{moment.state_bytes / 1024:.0f} KiB, however long it runs")
        answers: list[Any] = [Text(f"\n{self.ask}", style="bold")]
        for i, (seconds, answer, ms) in enumerate(reversed(self.answers)):
            style = "bold yellow" if i == 0 else "dim"
            answers.append(Text(f"{seconds:7.1f} s  {answer or '(nothing)'}  ({ms:.0f} ms)", style=style))
        return Panel(Group(facts, *answers), title=Path(self.source).name, title_align="left", border_style="blue")

    def _bars(self) -> str:
        """Latencies as bars, the slowest one full."""
        most = max(self.latencies)
        return "".join(BARS[min(len(BARS) - 1, int(ms / most * len(BARS)))] for ms in self.latencies)


def _asked(session: Session, question: str, moment: Moment) -> Moment:
    start = time.perf_counter()
    answer = session.ask(question)
    return replace(moment, answer=answer, answer_ms=(time.perf_counter() - start) * 1e3)
