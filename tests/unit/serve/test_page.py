"""The page in a real browser, over its devtools protocol: a file, a fake camera, a question each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser, browsing
from support.bundle import tiny_bundle
from support.media import tone, write_media
from support.service import QUESTION, Service, running, until

from mirasol.runtime.model import load

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A folder with one sample clip and its question."""
    folder = tmp_path / "samples"
    folder.mkdir()
    write_media(folder / "a_clip.mp4", frames=16, size=(16, 16), sound=tone(2.0))
    (folder / "samples.json").write_text(json.dumps([{"file": "a_clip.mp4", "question": QUESTION}]))
    return folder


@pytest.fixture
def service(samples: Path) -> Iterator[Service]:
    with running(samples=samples) as found:
        yield found


@pytest.fixture
def browser(service: Service, tmp_path: Path) -> Iterator[Browser]:
    with browsing(f"http://127.0.0.1:{service.port}/", "typeof Run == 'function'", tmp_path / "profile") as found:
        yield found


def ask(browser: Browser, question: str) -> str:
    browser.js(f"$('question').value = {json.dumps(question)}; $('asking').requestSubmit()")
    until(lambda: browser.js("run.influence !== null"), 60)
    return str(browser.js("document.querySelector('#answers .said').textContent"))


def play(browser: Browser, media: Path) -> None:
    """Choose ``media`` and wait for its end."""
    root = browser.do("DOM.getDocument")["root"]["nodeId"]
    chooser = browser.do("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.do("DOM.setFileInputFiles", files=[str(media)], nodeId=chooser)
    until(lambda: "ended" in browser.js("$('state').textContent"), 60)


def test_a_file_is_played_and_asked_about(browser: Browser, tmp_path: Path) -> None:
    media = write_media(tmp_path / "clip.mkv", frames=16, size=(16, 16), sound=tone(2.0))
    play(browser, media)
    assert (
        ask(browser, QUESTION) == str(load(tiny_bundle()).answer(media, QUESTION)) + "…"
    )  # the tiny model never ends one
    assert browser.js("document.querySelectorAll('#time canvas').length") == 8


def test_the_camera_brings_pictures_and_sound(browser: Browser, service: Service) -> None:
    browser.js("$('camera').click()")
    until(lambda: browser.js("run !== null && run.chunks.length >= 4"), 60)
    assert browser.js("Boolean(run.chunks[3].shot && run.chunks[3].mel)")
    assert ask(browser, QUESTION)
    browser.js("$('stop').click()")
    until(lambda: not service.manager.sessions)


def test_a_chunk_that_a_slow_service_gets_no_more_keeps_its_place(browser: Browser) -> None:
    browser.js("$('camera').click()")
    until(lambda: browser.js("run !== null && run.chunks.length >= 1"), 60)
    browser.js("Object.defineProperty(run.socket, 'bufferedAmount', { get: () => 1e9, configurable: true })")
    until(lambda: browser.js("run.chunks.some(chunk => !chunk.shot && !chunk.mel)"), 60)
    browser.js("delete run.socket.bufferedAmount")
    until(lambda: browser.js("Boolean(run.chunks.at(-1).shot && run.chunks.at(-1).mel)"), 60)


def test_no_width_needs_scrolling_sideways(browser: Browser) -> None:
    for width in (320, 375, 768, 1280):
        browser.do("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.js("document.documentElement.scrollWidth") == width


def test_a_sample_clip_plays_with_sound_and_its_question_is_asked_at_the_end(browser: Browser, samples: Path) -> None:
    until(lambda: browser.js("document.querySelectorAll('#samples button').length") == 1, 60)
    browser.js("document.querySelector('#samples button').click()")
    until(lambda: browser.js("Boolean(run && run.influence)"), 60)
    said = str(browser.js("document.querySelector('#answers .said').textContent"))
    assert said == str(load(tiny_bundle()).answer(samples / "a_clip.mp4", QUESTION)) + "…"
    shown = browser.js("[$('player').muted, $('player').duration > 1.5, $('whole').hidden, $('question').value]")
    assert shown == [False, True, False, QUESTION]


def test_a_question_chip_asks_at_once(browser: Browser, tmp_path: Path) -> None:
    until(lambda: browser.js("document.querySelectorAll('#prompts button').length") == 1, 60)
    play(browser, write_media(tmp_path / "clip.mkv", frames=16, size=(16, 16), sound=tone(2.0)))
    browser.js("document.querySelector('#prompts button').click()")
    until(lambda: browser.js("Boolean(run.influence)"), 60)
    assert browser.js("document.querySelector('#answers .soft').textContent") == QUESTION
