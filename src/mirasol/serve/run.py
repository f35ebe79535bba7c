"""Start the service and keep it until it is told to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.serve.app import make_app
from mirasol.serve.gate import LOCAL
from mirasol.serve.limits import Limits
from mirasol.serve.live import message_bytes

TOKEN = "MIRASOL_TOKEN"  # an environment variable: arguments can be read by every user of the machine
GOODBYE_SECONDS = 5


def serve(
    bundle: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    threads: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Serve ``bundle`` until Ctrl-C or SIGTERM.

    Args:
        host: the address to listen at; other machines reach the service only if it is another than the default.
        port: its port; 0 for any that is free.
        say: told the address, and a warning where other machines reach it.

    Raises:
        MirasolError: the bundle cannot be used, or the address is taken or none of this machine.
    """
    local, token = host in LOCAL, os.environ.get(TOKEN, "")
    app = make_app(Engine(bundle, threads=threads), limits, token=token, local=local)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # paths hold the sessions' names
        server_header=False,
        ws_max_size=message_bytes(app.state.hub),
        ws_max_queue=4,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    with _listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}")
        if not local:
            say(_warning(bool(token)))
        uvicorn.Server(config).run([listening])


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
