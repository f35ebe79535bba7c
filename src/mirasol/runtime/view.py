"""`mirasol stream`: a live view on a terminal, else a line per answer."""

from __future__ import annotations

import collections
import contextlib
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mirasol.core.errors import MirasolError
from mirasol.runtime.model import Model
from mirasol.runtime.sources.camera import LiveSource, shown
from mirasol.runtime.sources.open import open_stream
from mirasol.runtime.stream import Moment, moments

BARS = "▁▂▃▄▅▆▇█"
SHOWN_CHUNKS, SHOWN_ANSWERS = 48, 6


def show(
    model: Model,
    source: str | Path,
    ask: str,
    every: float = 2.0,
    *,
    wait: bool = True,
    console: Console | None = None,
) -> str:
    """Stream ``source`` and show its answers and costs until it ends or Ctrl-C.

    Args:
        model, source, ask, every, wait: see :meth:`Model.stream`.
        console: standard output by default.

    Returns:
        The last answer; empty if the stream ended before the first.

    Raises:
        MirasolError: the source cannot be used, or the question is empty or too long.
    """
    if every <= 0:
        raise MirasolError(f"--every is {every:g} s, expected more than 0")
    model.engine.check_question(ask)
    chunks = open_stream(source, model.engine.contract.clip)
    view = View(shown(str(source)), ask, chunks.chunk_seconds, wait)
    console = console or Console()
    running = moments(model.session(chunks.chunk_seconds), chunks, ask, every, wait=wait)
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
    return str(view.answered[-1].answer) if view.answered else ""


class View:
    """A stream on screen: latencies of the last chunks, pace, last answers."""

    def __init__(self, source: str, ask: str, chunk_seconds: float, wait: bool) -> None:
        self.source, self.ask, self.chunk_seconds, self.wait = source, ask, chunk_seconds, wait
        self.latencies: collections.deque[float] = collections.deque(maxlen=SHOWN_CHUNKS)
        self.answered: collections.deque[Moment] = collections.deque(maxlen=SHOWN_ANSWERS)
        self.moment: Moment | None = None
        self.busy = 0.0  # seconds spent on chunks

    def add(self, moment: Moment) -> None:
        """Add a moment; the last chunk comes twice, the second time with an answer."""
        if self.moment is None or moment.index > self.moment.index:
            self.latencies.append(moment.chunk_ms)
            self.busy += moment.chunk_ms / 1e3
        self.moment = moment
        if moment.answer is not None:
            self.answered.append(moment)

    def line(self, moment: Moment) -> str:
        """A moment with an answer as one line."""
        return (
            f"{moment.seconds:8.1f} s  {moment.answer!s:<16} "
            f"chunk {moment.chunk_ms:.1f} ms, answer {moment.answer_ms:.1f} ms, {self.keeping_up(moment)}"
        )

    def keeping_up(self, moment: Moment) -> str:
        """Behind or ahead of the source; at its own speed, less than one chunk behind is "live"."""
        if self.wait and moment.behind < self.chunk_seconds:
            return "live"
        return f"{abs(moment.behind):.1f} s {'behind' if moment.behind > 0 else 'ahead'}"

    def summary(self) -> str:
        """The whole stream as one line."""
        if self.moment is None:
            return "nothing was streamed"
        ratio = self.moment.seconds / max(self.busy, 1e-9)
        return (
            f"{self.moment.seconds:.1f} s in {self.moment.index + 1} chunks, {ratio:.0f} x real time, "
            f"state {self.moment.state_bytes / 1024:.0f} KiB"
        )

    def render(self) -> Panel:
        """The current view."""
        moment = self.moment
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", justify="right")
        facts.add_column()
        if moment is None:
            facts.add_row("", "waiting for the first chunk")
        else:
            present = (("picture", moment.has_video), ("sound", moment.has_audio))
            senses = " + ".join(name for name, here in present if here)
            late = moment.behind >= self.chunk_seconds
            facts.add_row("time", f"{moment.seconds:.1f} s, chunk {moment.index + 1} ({senses})")
            facts.add_row("chunk", Text.assemble(f"{moment.chunk_ms:5.1f} ms ", (self._bars(), "cyan")))
            facts.add_row("pace", Text(self.keeping_up(moment), style="bold red" if late else "green"))
            facts.add_row("state", f"{moment.state_bytes / 1024:.0f} KiB, however long it runs")
        answers = [Text(f"\n{self.ask}", style="bold")]
        for i, m in enumerate(reversed(self.answered)):
            style = "bold yellow" if i == 0 else "dim"
            answers.append(
                Text(f"{m.seconds:7.1f} s  {str(m.answer) or '(nothing)'}  ({m.answer_ms:.0f} ms)", style=style)
            )
        return Panel(Group(facts, *answers), title=Path(self.source).name, title_align="left", border_style="blue")

    def _bars(self) -> str:
        """Latencies as bars; the slowest is full height."""
        most = max(self.latencies)
        return "".join(BARS[min(len(BARS) - 1, int(ms / most * len(BARS)))] for ms in self.latencies)
