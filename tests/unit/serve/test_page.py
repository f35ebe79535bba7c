"""The page in a real browser, over its devtools protocol: a file, a fake camera, a question each."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bundle import tiny_bundle
from support.media import tone, write_media
from support.scratch import LIMIT
from support.service import QUESTION, Service, running, until
from websockets.sync.client import ClientConnection, connect

from mirasol.runtime.model import load

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream")
FLAGS += ("--use-fake-ui-for-media-stream", "--remote-allow-origins=*", "--remote-debugging-port=0")


class Browser:
    """One page of it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count()
        self.faults: list[Any] = []

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=LIMIT))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.faults.append(message["params"])
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def js(self, code: str) -> Any:
        found = self.do("Runtime.evaluate", expression=code, returnByValue=True, userGesture=True)
        return found["result"].get("value")

    def ask(self, question: str) -> str:
        self.js(f"$('question').value = {json.dumps(question)}; $('asking').requestSubmit()")
        until(lambda: self.js("run.influence !== null"), 60)
        return str(self.js("document.querySelector('#answers .said').textContent"))


@pytest.fixture
def service() -> Iterator[Service]:
    with running() as found:
        yield found


@pytest.fixture
def browser(service: Service, tmp_path: Path) -> Iterator[Browser]:
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = tmp_path / "profile" / "DevToolsActivePort"
        until(lambda: told.is_file() and told.read_text().strip(), 120)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as listing:
            page = next(tab for tab in json.load(listing) if tab["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            found = Browser(socket)
            for domain in ("Page", "Runtime", "Log", "DOM"):
                found.do(f"{domain}.enable")
            found.do("Page.navigate", url=f"http://127.0.0.1:{service.port}/")
            until(lambda: found.js("typeof Run") == "function", 60)
            yield found
            assert not found.faults
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # its children let go of the profile


def test_a_file_is_played_and_asked_about(browser: Browser, tmp_path: Path) -> None:
    media = write_media(tmp_path / "clip.mkv", frames=16, size=(16, 16), sound=tone(2.0))
    root = browser.do("DOM.getDocument")["root"]["nodeId"]
    chooser = browser.do("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.do("DOM.setFileInputFiles", files=[str(media)], nodeId=chooser)
    until(lambda: "ended" in browser.js("$('state').textContent"), 60)
    assert (
        browser.ask(QUESTION) == str(load(tiny_bundle()).answer(media, QUESTION)) + "…"
    )  # the tiny model never ends one
    assert browser.js("document.querySelectorAll('#time canvas').length") == 8


def test_the_camera_brings_pictures_and_sound(browser: Browser, service: Service) -> None:
    browser.js("$('camera').click()")
    until(lambda: browser.js("run !== null && run.chunks.length >= 4"), 60)
    assert browser.js("Boolean(run.chunks[3].shot && run.chunks[3].mel)")
    assert browser.ask(QUESTION)
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
