"""The progress display: plain lines off a terminal, a bar on one."""

from __future__ import annotations

import io
import itertools

import pytest

from mirasol.core import progress
from mirasol.core.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test writes ``clock[0]``."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_line_says_count_rate_time_left_and_figures(clock: list[float]) -> None:
    out = io.StringIO()
    with Progress("shards", 10_000, stream=out) as bar:
        bar.advance(1_000)
        clock[0] = 20.0
        bar.advance(2_000, loss=0.31234, accuracy="5 %")
        assert out.getvalue() == "[shards] 3,000/10,000 clips 100/s 1:10 left, loss 0.3123, accuracy 5 %\n"


def test_time_left_follows_the_current_rate(clock: list[float]) -> None:
    bar = Progress("finetune", 27_200, stream=io.StringIO())
    clock[0] = 28.0  # the first batch waits for compilation: it says nothing about the rest
    bar.advance(16)
    assert "left" not in bar.text()
    for step in range(1, 21):
        clock[0] = 28.0 + step
        bar.advance(54)
    assert bar.text() == "1,096/27,200 clips 54/s 8:03 left"


def test_units_that_arrive_at_once_say_nothing_about_the_time_left(clock: list[float]) -> None:
    bar = Progress("shards", 1_000, stream=io.StringIO())
    clock[0] = 10.0
    bar.advance(10)
    bar.advance(10)
    assert bar.text() == "20/1,000 clips 2/s"


def test_a_slow_phase_is_forgotten_after_half_a_minute(clock: list[float]) -> None:
    bar = Progress("evaluate", 1_000, stream=io.StringIO())
    for second in (0.0, 100.0, 110.0, 120.0, 131.0):
        clock[0] = second
        bar.advance(10 if second <= 100 else 100)
    assert bar.recent == 300 / 31


def test_plain_lines_come_every_five_seconds_and_once_at_the_end(clock: list[float]) -> None:
    out = io.StringIO()
    with Progress("world", 21, "files", stream=out) as bar:
        for second in range(1, 22):
            clock[0] = float(second)
            bar.advance()
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["5/21", "10/21", "15/21", "20/21", "21/21"]
    assert lines[-1].endswith("in 0:21")


def test_resumed_work_does_not_count_into_the_rate(clock: list[float]) -> None:
    bar = Progress("finetune", 1_000, "steps", done=900, stream=io.StringIO())
    bar.advance(0)
    clock[0] = 2.0
    bar.advance(40)
    assert bar.text() == "940/1,000 steps 20/s 0:03 left"


def test_unknown_total_shows_no_time_left(clock: list[float]) -> None:
    bar = Progress("stream", None, "chunks", stream=io.StringIO())
    clock[0] = 4.0
    bar.advance(2)
    assert bar.text() == "2 chunks 0.5/s"


def test_failed_work_is_not_reported_as_finished(clock: list[float]) -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), Progress("shards", 10, stream=out) as bar:
        bar.advance(3)
        raise RuntimeError("broken")
    assert out.getvalue().rstrip().endswith("stopped")


def test_terminal_gets_a_bar() -> None:
    out = Terminal()
    with Progress("shards", 3, stream=out) as bar:
        for _ in itertools.repeat(None, 3):
            bar.advance(loss=0.5)
    assert "shards" in out.getvalue()
    assert "3/3 clips" in out.getvalue()
