"""A headless Chromium, over its devtools protocol."""

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

from support.scratch import LIMIT, until
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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

    def key(self, key: str) -> None:
        """Press and release a key by its name, such as Enter, ArrowLeft or 1."""
        code = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}.get(key) or ord(key.upper())
        text = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)


@contextlib.contextmanager
def browsing(url: str, ready: str, profile: Path) -> Iterator[Browser]:
    """A page at ``url`` once the expression ``ready`` is true; fails on errors of its script."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        told = profile / "DevToolsActivePort"
        until(lambda: told.is_file() and told.read_text().strip(), 120)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as listing:
            page = next(tab for tab in json.load(listing) if tab["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            found = Browser(socket)
            for domain in ("Page", "Runtime", "Log", "DOM"):
                found.do(f"{domain}.enable")
            found.do("Page.navigate", url=url)
            until(lambda: found.js(ready), 60)
            yield found
            assert not found.faults
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # its children let go of the profile
