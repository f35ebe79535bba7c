"""A camera's stream: late, broken off, back again, too fast; and the same chunks as a file's where nothing happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.media import TINY_CLIP, shown, tone, write_media
from support.rtsp import serving
from support.scratch import LIMIT, wait_until

from mirasol.core.errors import MirasolError
from mirasol.runtime.sources import camera as live
from mirasol.runtime.sources.camera import LiveSource
from mirasol.runtime.sources.files import Chunk, FileSource
from mirasol.runtime.sources.open import open_stream

CHUNK = TINY_CLIP.chunk_seconds  # 0.25 s


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """2 s: eight chunks."""
    return write_media(tmp_path / "clip.mkv", frames=16, size=(16, 16), sound=tone(2.0))


class Container:
    """A file that is demuxed as a camera is: packet by packet, with what ``between`` does before some of them."""

    def __init__(self, path: Path, between: Callable[[int], None] = lambda _: None) -> None:
        self._container, self._between = av.open(str(path)), between

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, streams: Any) -> Iterator[Any]:
        for number, packet in enumerate(self._container.demux(streams)):
            self._between(number)
            yield packet


def camera(*containers: Any) -> LiveSource:
    """A camera that opens each of ``containers`` once. Then it ends, so that a slow machine needs no short patience."""
    left = list(containers)

    def open_next() -> Any:
        if left:
            return left.pop(0)
        source._stopped = True
        raise OSError(5, "gone")

    source = LiveSource("camera", TINY_CLIP, open_container=open_next)
    return source


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a camera again without a pause; keep every chunk, however late the test takes it."""
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(live, "WAITING", 100)


def test_an_unbroken_stream_gives_the_file_s_chunks(media: Path) -> None:
    found = list(camera(Container(media)))
    for chunk, expected in zip(found, FileSource(media, TINY_CLIP), strict=False):
        assert (chunk.index, chunk.end) == (expected.index, expected.end)
        assert np.array_equal(chunk.video, expected.video)
        assert np.array_equal(chunk.samples, expected.samples)
    assert sum(chunk.video is not None for chunk in found) == 8


def test_an_rtsp_address_is_streamed_and_taken_up_again(tmp_path: Path) -> None:
    sound = tone(2.0, rate=16000)
    path = write_media(tmp_path / "clip.ts", frames=16, size=(64, 64), sound=sound, rate=16000, codec="mp2")
    with serving(path, 2.0) as address:
        chunks = iter(open_stream(address, TINY_CLIP))
        found = [chunk for chunk, _ in zip(chunks, range(24), strict=False)]
        chunks.close()
    both = [chunk for chunk in found if chunk.video is not None and chunk.samples is not None]
    first, second = shown(both[2].video)
    assert (first in range(3, 6), second - first) == (True, 1)
    assert np.abs(both[2].samples).max() > 0.1
    assert [shown(chunk.video)[0] for chunk in both].count(0) >= 2, "the server plays from the beginning again"
    assert [chunk.index for chunk in found] == list(range(24))


def test_a_stream_that_returns_goes_on_after_the_gap(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missed, found = threading.Event(), list[Chunk]()
    for chunk in camera(Container(media), Container(media, lambda _: missed.wait(LIMIT))):
        found.append(chunk)
        if len(found) == 8:
            monkeypatch.setattr(live, "LATE", 0.05)
        if chunk.video is None:
            monkeypatch.setattr(live, "LATE", LIMIT)
            missed.set()
    there = [chunk.video is not None for chunk in found]
    assert [chunk.index for chunk in found] == list(range(len(found)))
    assert there[:8] == [True] * 8 and there[8] is False and sum(there) == 16
    second = found[there.index(True, 8)]
    assert shown(second.video)[0] == 0, "the new connection begins anew"


def test_a_change_of_the_frame_rate_keeps_time(tmp_path: Path) -> None:
    times = [i / 8 for i in range(8)] + [1 + i / 24 for i in range(24)]
    path = write_media(tmp_path / "clip.mkv", frames=32, size=(16, 16), times=times)
    found = list(camera(Container(path)))
    frames = np.concatenate([chunk.video for chunk in found if chunk.video is not None])
    assert shown(frames) == [*range(8), *((8 + 3 * i) % 16 for i in range(8))]


def test_time_stamps_that_jump_begin_anew_and_cost_no_memory(tmp_path: Path) -> None:
    times = [i / 8 for i in range(8)] + [100_000 + i / 8 for i in range(8)]
    path = write_media(tmp_path / "clip.mkv", frames=16, size=(16, 16), times=times)
    found = list(camera(Container(path)))
    frames = np.concatenate([chunk.video for chunk in found if chunk.video is not None])
    assert shown(frames) == list(range(16))


def test_pictures_go_on_without_the_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", frames=24, size=(16, 16), sound=tone(0.5))
    found = list(camera(Container(path)))
    assert [chunk.samples is not None for chunk in found if chunk.video is not None] == [True] * 2 + [False] * 10


def test_what_the_model_has_no_time_for_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WAITING", 8)
    path = write_media(tmp_path / "clip.mkv", frames=48, size=(16, 16))
    source = camera(Container(path))
    chunks = iter(source)
    next(chunks)
    while not source._ended:
        time.sleep(0.01)
    rest = sum(chunk.video is not None for chunk in chunks)
    assert (source.dropped > 0, 1 + rest + source.dropped) == (True, 24)


def test_an_error_that_nobody_expects_ends_the_stream(media: Path) -> None:
    def fail(number: int) -> None:
        if number == 12:
            raise RuntimeError("out of order")

    source = camera(Container(media, fail))
    with pytest.raises(RuntimeError, match="out of order"):
        for chunk in source:
            assert chunk.index < 12, "empty chunks come for ever"


def test_a_reader_that_nobody_listens_to_ends(media: Path) -> None:
    source = LiveSource("camera", TINY_CLIP, open_container=lambda: Container(media))
    chunks = iter(source)
    next(chunks)
    before = threading.active_count()
    chunks.close()
    wait_until("the end of the thread that reads", lambda: threading.active_count() < before)


@pytest.mark.parametrize(
    "address",
    [
        "/dev/video99",
        "rtsp://user:secret@127.0.0.1:9/live",
        "rtsp://user:p@secret@127.0.0.1:9/live",
        "rtsp://127.0.0.1:9/live?user=me&password=secret",
    ],
)
def test_what_cannot_be_opened_is_named_without_its_password(address: str) -> None:
    with pytest.raises(MirasolError, match="cannot be opened") as error:
        open_stream(address, TINY_CLIP)
    assert "secret" not in str(error.value)


def test_a_number_is_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MirasolError, match=r"^/dev/video98: cannot be opened: .* Cameras here: "):
        open_stream("98", TINY_CLIP)


def test_a_file_whose_name_is_a_number_stays_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "98").write_text("no video")
    with pytest.raises(MirasolError, match=r"^98: cannot be opened as video"):
        open_stream("98", TINY_CLIP)
