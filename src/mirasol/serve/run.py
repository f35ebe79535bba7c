"""Start the service and keep it until it is told to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.serve.app import make_app
from mirasol.serve.limits import Limits
from mirasol.serve.middleware import LOCAL
from mirasol.serve.websocket import message_bytes

TOKEN = "MIRASOL_TOKEN"  # an environment variable: arguments can be read by every user of the machine
GOODBYE_SECONDS = 5


REFUSED = b'{"error": "this is no whole handshake of a WebSocket: expected GET, Sec-WebSocket-Key and no body"}'
HEAD = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"


class WholeHandshakes(WebSocketsSansIOProtocol):
    """WebSockets for those who ask for one as they should.

    uvicorn 0.54 hands over every request that names the protocol, its head in one piece. It never answers where the
    method is not GET or a body follows, and the connection stays for ever. Such a request is refused here.
    """

    checked = False

    def data_received(self, data: bytes) -> None:
        """What the client has sent, the request's head first."""
        if not (self.checked or whole_handshake(data)):
            self.transport.write(HEAD.format(len(REFUSED)).encode() + REFUSED)
            self.transport.close()
            return
        self.checked = True
        super().data_received(data)


def whole_handshake(head: bytes) -> bool:
    """Whether a request's head can begin a WebSocket."""
    request, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = {line.partition(b":")[0].strip().lower() for line in lines}
    body = names & {b"content-length", b"transfer-encoding"}
    return request.startswith(b"GET ") and b"sec-websocket-key" in names and not body


def config_of(app: FastAPI) -> uvicorn.Config:
    """How the service of ``make_app`` is run."""
    return uvicorn.Config(
        app,
        http="h11",
        ws=WholeHandshakes,
        log_level="error",
        access_log=False,  # paths hold the sessions' names
        server_header=False,
        ws_max_size=message_bytes(app.state.hub),
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )


def serve(
    bundle: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    threads: int = 0,
    provider: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Serve ``bundle`` until Ctrl-C or SIGTERM.

    Args:
        host: the address to listen at; other machines reach the service only if it is another than the default.
        port: its port; 0 for any that is free.
        provider: who computes, as :class:`Engine` knows it.
        say: told the address, and a warning where other machines reach it.

    Raises:
        MirasolError: the bundle, the provider or the token cannot be used, or the address is taken or none of this
            machine.
    """
    local, token = host in LOCAL, _token()
    app = make_app(Engine(bundle, threads=threads, provider=provider), limits, token=token, local=local)
    with _listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}")
        if not local:
            say(_warning(bool(token)))
        uvicorn.Server(config_of(app)).run([listening])


def _token() -> str:
    """What clients must bring; clients disagree about the bytes of other characters, and headers lose spaces."""
    token = os.environ.get(TOKEN, "")
    if any(not "!" <= character <= "~" for character in token):
        raise MirasolError(
            f"{TOKEN} may hold visible ASCII characters alone, no spaces: take, for example, what "
            "`openssl rand -hex 32` prints"
        )
    return token


def _warning(token: bool) -> str:
    if token:
        return "warning: other machines reach this address, and nothing is encrypted: put a proxy with TLS before it"
    return (
        "warning: other machines reach this address and nobody is asked who they are. Set the environment variable "
        f"{TOKEN} to a secret that clients must send, and put a proxy with TLS before it"
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MirasolError(f"cannot listen at {host} port {port}: {reason}. Choose --host or --port") from error
    return listening
