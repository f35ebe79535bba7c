"""The service, really listening, in a thread of the test's process."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from support.bundle import CLIP, random_chunk, tiny_bundle
from support.scratch import LIMIT, until
from websockets.sync.client import ClientConnection, connect

from mirasol.runtime.engine import Engine
from mirasol.serve.app import make_app
from mirasol.serve.limits import Limits
from mirasol.serve.run import config_of
from mirasol.serve.sessions import SessionManager

QUESTION = "red bell"  # the tiny model has something to say to it


@dataclass
class Service:
    """Where it listens, and its inside."""

    port: int
    manager: SessionManager

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request: its status, and its body as JSON where it is that. A dict is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json"} | headers
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(content)
        return answer.status, content

    def session(self) -> str:
        """A new session's path."""
        status, found = self.call("POST", "/api/sessions")
        assert status == 201, found
        return f"/api/sessions/{found['id']}"

    def socket(self, path: str, **keywords: Any) -> ClientConnection:
        """The WebSocket of a session."""
        return connect(f"ws://127.0.0.1:{self.port}{path}/stream", max_size=None, **keywords)

    def raw(self) -> socket.socket:
        """A connection to misuse."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)


@contextlib.contextmanager
def running(limits: Limits | None = None, engine: Engine | None = None, **settings: Any) -> Iterator[Service]:
    """The service over ``engine``, by default that of the tiny bundle."""
    app = make_app(engine or Engine(tiny_bundle(), threads=1), limits, **settings)
    listening = socket.create_server(("127.0.0.1", 0))
    config = config_of(app)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Service(listening.getsockname()[1], app.state.manager)
    finally:
        server.should_exit = True
        thread.join(LIMIT)
        assert not app.state.manager.folder.exists(), "uploads were left behind"


def events(socket: ClientConnection, last: str) -> list[dict[str, Any]]:
    """Events up to and with the first of kind ``last``."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != last:
        found.append(json.loads(socket.recv(timeout=LIMIT)))
    return found


def camera_chunk(seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A message, and the frames and samples that the runtime makes of it."""
    video, samples = random_chunk(seed)
    sound = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    message = b"MIR1\x03\0\0\0" + video.tobytes() + sound.tobytes()
    assert len(sound) == round(CLIP.chunk_seconds * CLIP.sample_rate)
    return message, video, (sound / 32768).astype(np.float32)
