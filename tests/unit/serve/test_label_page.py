"""The page of `mirasol label`: its service, and the page in a real browser, driven by keys."""

from __future__ import annotations

import contextlib
import csv
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from support.browser import CHROMIUM, Browser, browsing
from support.media import tone, write_media
from support.scratch import LIMIT, until

from mirasol.media.container import probe
from mirasol.serve.label import label_config, make_label_app
from mirasol.serve.labels import Labels, Proposal
from mirasol.serve.preview import write_preview

IN_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@contextlib.contextmanager
def labelling(folder: Path, **keywords: Any) -> Iterator[httpx.Client]:
    """The page over ``folder``, really listening, with its labels in ``labels.csv`` beside it."""
    labels = Labels(folder, folder.parent / "labels.csv", "which sound is it", **keywords)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(label_config(make_label_app(labels)))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=LIMIT) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(LIMIT)
        labels.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label") / "clips"
    for number in range(6):
        write_media(folder / f"{number}.mkv", frames=16, size=(32, 32), sound=tone(2.0, hertz=300.0 + 90 * number))
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def page(clips: Path) -> Iterator[httpx.Client]:
    (clips.parent / "labels.csv").unlink(missing_ok=True)
    with labelling(clips) as client:
        until(lambda: client.get("/api/state").json()["waiting"] == 0)
        yield client


def rows(clips: Path) -> list[dict[str, str]]:
    with (clips.parent / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_label_over_http_is_in_the_file(page: httpx.Client, clips: Path) -> None:
    media = page.get("/api/state").json()["clip"]["media"]
    after = page.post("/api/label", json={"media": media, "answer": "bell"}).json()
    assert (after["labelled"], after["answers"]) == (1, ["bell"])
    assert [(row["media"], row["answers"]) for row in rows(clips)] == [(media, "bell")]


def test_a_page_of_another_site_cannot_label(page: httpx.Client) -> None:
    for headers in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
        assert page.post("/api/undo", headers=headers).status_code in (403, 421)


def test_media_are_sent_in_ranges_and_no_other_file_is(page: httpx.Client, clips: Path) -> None:
    part = page.get("/media/0.mkv", headers={"Range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, (clips / "0.mkv").read_bytes()[4:10])
    for path in ("/media/..%2Flabels.csv", "/media//etc/passwd", "/preview/nothing.mp4"):
        assert page.get(path).status_code in (404, 422)


def test_a_preview_is_what_browsers_play(tmp_path: Path) -> None:
    source = write_media(tmp_path / "clip.mkv", frames=16, size=(34, 18), sound=tone(2.0))
    write_preview(source, tmp_path / "preview.mp4")
    info = probe(tmp_path / "preview.mp4")
    assert (info.video_codec, info.audio_codec, info.width, info.height) == ("h264", "aac", 34, 18)
    assert info.duration == pytest.approx(2.0, abs=0.1)


@pytest.fixture
def browser(clips: Path, tmp_path: Path) -> Iterator[Browser]:
    (clips.parent / "labels.csv").unlink(missing_ok=True)
    with (
        labelling(
            clips, answers=["bell", "red"], propose=lambda path: Proposal("buzz", 0.8, 0.6, flags=("no sound",))
        ) as to,
        browsing(
            f"{to.base_url}/", "state !== null && state.waiting == 0 && state.clip !== null", tmp_path / "p"
        ) as found,
    ):
        yield found


def after(browser: Browser, action: str, count: int) -> None:
    """Do ``action`` in the browser and wait until so many clips are labelled."""
    browser.key(action)
    until(lambda: browser.js(f"!busy && state.labelled == {count}"), 60)


@pytest.mark.slow
@IN_BROWSER
def test_keys_accept_choose_type_skip_and_undo(browser: Browser, clips: Path) -> None:
    until(lambda: browser.js("!$('video').hidden && $('video').readyState >= 2 && $('video').error === null"), 60)
    assert browser.js("$('flags').textContent") == "Note: no sound."
    after(browser, "Enter", 1)
    after(browser, "2", 2)
    browser.key("ArrowRight")
    until(lambda: browser.js("!busy && state.skipped == 1"), 60)
    for letter in "gong":
        browser.key(letter)
    after(browser, "Enter", 3)
    after(browser, "ArrowLeft", 2)
    after(browser, "1", 3)
    assert [row["answers"] for row in rows(clips)] == ["buzz", "red", "bell"]
    assert browser.js("$('list').textContent").startswith("bad.mp4: ")


@pytest.mark.slow
@IN_BROWSER
def test_no_width_needs_scrolling_sideways(browser: Browser) -> None:
    for width in (320, 390, 768, 1280):
        browser.do("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.js("document.documentElement.scrollWidth") == width
