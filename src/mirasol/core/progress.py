"""The progress display of all long work: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

EVERY = 5.0  # seconds between plain lines: often enough to see life, rare enough for a log
RECENT = 30.0  # seconds of the rate that the time left follows: a slow start is forgotten
ENOUGH = 2.0  # seconds of work after the first units, before a time left is more than noise


class Progress:
    """Shows the progress of long work; a context manager.

    On a terminal a bar on stderr; otherwise plain lines that survive in a log::

        [shards] 3,200/10,000 clips 151/s 0:45 left, written 12 MB

    Args:
        label: the work, usually the stage.
        total: units in all, ``None`` if unknown.
        unit: name of a unit.
        done: units that an earlier run, which this one resumes, has done; the rate leaves them out.
        stream: output, stderr by default.
    """

    def __init__(
        self, label: str, total: int | None, unit: str = "clips", *, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self._before = done
        self._stream = stream if stream is not None else sys.stderr
        self._figures: dict[str, float | int | str] = {}
        self._began = self._said = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque()  # (time, done) of the last RECENT seconds
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._began = self._said = time.monotonic()
        if self._stream.isatty():
            # Imported here: rich costs 50 ms that a pipeline without a terminal need not pay.
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            console = Console(file=self._stream)
            columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Bar(*columns, console=console)
            self._bar.add_task(self.label, total=self.total, completed=self.done, text=self.text())
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()
            self._bar = None
        else:
            ending = f"in {clock(time.monotonic() - self._began)}" if kind is None else "stopped"
            self._say(f"{self.text(left=False)}, {ending}")

    def advance(self, n: int = 1, **figures: float | int | str) -> None:
        """Count ``n`` more units; ``figures`` (loss, accuracy) appear after the rate until replaced."""
        self.done += n
        self._figures.update(figures)
        now = time.monotonic()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RECENT:
            self._marks.popleft()
        if self._bar is not None:
            self._draw()
        elif self.done != self.total and time.monotonic() - self._said >= EVERY:  # the last line comes at the end
            self._said = time.monotonic()
            self._say(self.text())

    @property
    def rate(self) -> float:
        """Units per second since the start of this run."""
        return (self.done - self._before) / max(time.monotonic() - self._began, 1e-9)

    @property
    def recent(self) -> float | None:
        """Units per second of the last half minute, without the start-up; ``None`` until they tell something."""
        if not self._marks:
            return None
        (start, before), (end, done) = self._marks[0], self._marks[-1]
        return (done - before) / (end - start) if end - start >= ENOUGH and done > before else None

    def text(self, *, left: bool = True) -> str:
        """Count, rate, time left and figures; without ``left`` the rate of the whole."""
        parts = [f"{self.done:,}" + (f"/{self.total:,}" if self.total is not None else ""), self.unit]
        recent = self.recent if left else None
        if self.done > self._before:
            rate = recent or self.rate
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if recent and self.total is not None and self.total > self.done:
            parts.append(f"{clock((self.total - self.done) / recent)} left")
        figures = (
            f"{n} {value:.4g}" if isinstance(value, float) else f"{n} {value}" for n, value in self._figures.items()
        )
        return ", ".join([" ".join(parts), *figures])

    def _draw(self) -> None:
        assert self._bar is not None
        self._bar.update(self._bar.task_ids[0], completed=self.done, text=self.text())

    def _say(self, text: str) -> None:
        print(f"[{self.label}] {text}", file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """Seconds as 0:45 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
