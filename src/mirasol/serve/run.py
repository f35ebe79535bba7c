"""Start the service and run it until a signal stops it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.serve.app import make_app
from mirasol.serve.follow import Follower
from mirasol.serve.limits import Limits
from mirasol.serve.middleware import LOCAL
from mirasol.serve.websocket import message_bytes

TOKEN = "MIRASOL_TOKEN"  # an environment variable: arguments can be read by every user of the machine
GOODBYE_SECONDS = 5
REFUSED = b'{"error": "this is not a complete WebSocket handshake: expected GET, Sec-WebSocket-Key and no body"}'
HEAD = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"


class WholeHandshakes(WebSocketsSansIOProtocol):
    """WebSockets, for complete handshakes only.

    uvicorn 0.54 passes on every request that names the protocol, its head in one piece. If the method is not GET or a
    body follows, it never answers and the connection stays open for ever. Such a request is refused here.
    """

    checked = False

    def __init__(self, config: uvicorn.Config, *arguments: Any, **keywords: Any) -> None:
        config.ws_max_size = message_bytes(cast(FastAPI, config.app).state.manager)  # another release: other chunks
        super().__init__(config, *arguments, **keywords)

    def data_received(self, data: bytes) -> None:
        """Receive bytes, the request's head first."""
        if not (self.checked or whole_handshake(data)):
            self.transport.write(HEAD.format(len(REFUSED)).encode() + REFUSED)
            self.transport.close()
            return
        self.checked = True
        super().data_received(data)


def whole_handshake(head: bytes) -> bool:
    """Whether a request's head can start a WebSocket."""
    request, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = {line.partition(b":")[0].strip().lower() for line in lines}
    body = names & {b"content-length", b"transfer-encoding"}
    return request.startswith(b"GET ") and b"sec-websocket-key" in names and not body


def config_of(app: FastAPI) -> uvicorn.Config:
    """uvicorn's settings for the service of ``make_app``."""
    return uvicorn.Config(
        app,
        http="h11",
        ws=WholeHandshakes,
        log_level="error",
        access_log=False,  # paths hold the sessions' keys
        server_header=False,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )


def serve(
    load: Callable[[], Engine],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    limits: Limits | None = None,
    samples: Path | None = None,
    follow: Follower | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a bundle until Ctrl-C or SIGTERM.

    Args:
        load: loads the bundle; no frame here holds the engine, which another release frees.
        host: the address to listen at; by default other machines cannot reach it.
        port: its port; 0 for any free one.
        limits: resources that clients may use.
        samples: a folder with clips that the page offers, by default the bundle's `samples` if it has one.
        follow: watches a registry, whose current release then takes over new sessions.
        say: receives the address, and a warning if other machines reach it.

    Raises:
        MirasolError: the token cannot be used, the address is in use or not one of this machine, or ``samples`` has no
            clip.
    """
    local, token = host in LOCAL, _token()
    app = make_app(load(), limits, token=token, local=local, samples=samples, follow=follow)
    with listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}")
        if not local:
            say(_warning(bool(token)))
        uvicorn.Server(config_of(app)).run([listening])


def _token() -> str:
    """The clients' secret: visible ASCII, since clients encode others differently and headers lose spaces."""
    token = os.environ.get(TOKEN, "")
    if any(not "!" <= character <= "~" for character in token):
        raise MirasolError(
            f"{TOKEN} may hold only visible ASCII characters, no spaces: take, for example, the output of "
            "`openssl rand -hex 32`"
        )
    return token


def _warning(token: bool) -> str:
    if token:
        return "warning: other machines reach this address, and nothing is encrypted: put a proxy with TLS before it"
    return (
        "warning: other machines reach this address without any authentication. Set the environment variable "
        f"{TOKEN} to a secret that clients must send, and put a proxy with TLS before it"
    )


def listen(host: str, port: int, options: str = "--host or --port") -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        MirasolError: the address is in use or not one of this machine; the remedy names ``options``.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MirasolError(f"cannot listen at {host} port {port}: {reason}. Choose {options}") from error
    return listening
