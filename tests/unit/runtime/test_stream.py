"""A live stream: when it asks, how it keeps pace, its output."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from support.bundle import CLIP, MAX_CHUNKS, QUESTION, random_chunk, tiny_bundle
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.runtime import stream as module
from mirasol.runtime.answer import Answer
from mirasol.runtime.engine import Engine
from mirasol.runtime.model import load
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk, FileSource
from mirasol.runtime.stream import Moment, moments
from mirasol.runtime.view import View, show


class Clock:
    """Time that passes only by sleeping, and by 10 ms a look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def perf_counter(self) -> float:
        self.now += 0.01
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_bundle(), threads=1)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """3.5 s: seven chunks."""
    return write_media(tmp_path / "clip.mkv", frames=28, size=(16, 16), sound=tone(3.5))


def test_it_asks_every_so_often_and_after_the_last_chunk(engine: Engine, media: Path) -> None:
    found = list(moments(Session(engine), FileSource(media, CLIP), QUESTION, 1.0, wait=False))
    assert [m.seconds for m in found if m.answer is not None] == [1.0, 2.0, 3.0, 3.5]
    assert [m.index for m in found] == [0, 1, 2, 3, 4, 5, 6, 6]  # the last chunk once more, with its answer


def test_the_last_answer_is_that_of_the_whole_file(engine: Engine, media: Path) -> None:
    found = list(moments(Session(engine), FileSource(media, CLIP), QUESTION, 60.0, wait=False))
    assert [m.answer for m in found if m.answer is not None] == [load(tiny_bundle()).answer(media, QUESTION)]


class Camera:
    """Chunks that come, and others that do not."""

    chunk_seconds = CLIP.chunk_seconds

    def __init__(self, there: str) -> None:
        self.there = there

    def __iter__(self) -> Iterator[Chunk]:
        for index, letter in enumerate(self.there):
            video, samples = random_chunk(index) if letter == "x" else (None, None)
            yield Chunk(index, (index + 1) * self.chunk_seconds, video, samples)


def test_a_camera_that_stays_away_longer_than_the_memory_is_not_asked_about_and_its_stream_goes_on(
    engine: Engine,
) -> None:
    source = Camera("xx" + "." * (MAX_CHUNKS + 1) + "x" + "." * MAX_CHUNKS)
    found = list(moments(Session(engine), source, QUESTION, CLIP.chunk_seconds, wait=False))
    asked = [m.index for m in found if m.answer is not None]
    first_gone, back = MAX_CHUNKS + 1, MAX_CHUNKS + 3
    assert asked == [*range(first_gone), *range(back, back + MAX_CHUNKS)]
    assert found[-1].index == len(source.there) - 1


def test_state_does_not_grow(engine: Engine, media: Path) -> None:
    found = list(moments(Session(engine), FileSource(media, CLIP), QUESTION, 1.0, wait=False))
    assert len({m.state_bytes for m in found}) == 1


def test_at_its_own_speed_a_chunk_is_taken_in_when_it_is_complete(
    engine: Engine, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    found = list(moments(Session(engine), FileSource(media, CLIP), QUESTION, 60.0, wait=True))
    assert all(0 < m.behind < 0.1 for m in found)
    assert 3.0 < clock.slept <= 4.1


def test_a_slow_machine_falls_behind_and_drops_nothing(
    engine: Engine, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    session = Session(engine)
    push = session.push

    def slow(*chunk: object) -> object:
        clock.now += 0.8  # a chunk lasts 0.5 s
        return push(*chunk)

    monkeypatch.setattr(session, "push", slow)
    found = list(moments(session, FileSource(media, CLIP), QUESTION, 60.0, wait=True))
    behind = [m.behind for m in found]
    assert behind == sorted(behind)
    assert found[-1].index == 6
    assert View("clip.mkv", QUESTION, 0.5, True).keeping_up(found[-1]).endswith("s behind")


def test_lines_where_there_is_no_terminal(media: Path) -> None:
    out = io.StringIO()
    last = show(load(tiny_bundle(), threads=1), media, QUESTION, wait=False, console=Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].lstrip().startswith("2.0 s")
    assert last in lines[1]
    assert lines[2].startswith("3.5 s in 7 chunks, ")


def test_a_live_view_on_a_terminal(media: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    last = show(load(tiny_bundle(), threads=1), media, QUESTION, wait=False, console=console)
    shown = out.getvalue()
    assert "clip.mkv" in shown
    assert QUESTION in shown
    assert "picture + sound" in shown
    assert last in shown


def test_the_view_before_the_first_chunk_and_of_a_late_one() -> None:
    view = View("somewhere/clip.mkv", QUESTION, 0.5, True)
    assert view.summary() == "nothing was streamed"
    out = Console(file=io.StringIO(), width=100, record=True)
    out.print(view.render())
    view.add(Moment(0, 0.5, True, False, 900.0, 1.4, 2048, Answer("", 0.5, True, 1.0, 1.0, 0.5, None), 3.0))
    out.print(view.render())
    shown = out.export_text()
    assert "waiting for the first chunk" in shown
    assert "1.4 s behind" in shown
    assert "(nothing)" in shown


def test_never_to_ask_is_refused(media: Path) -> None:
    with pytest.raises(MirasolError, match="--every is 0 s"):
        show(load(tiny_bundle(), threads=1), media, QUESTION, 0.0)
