"""What stands before the service: who may call it from where, and how much may come in at once."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from mirasol.serve.limits import Limits
from mirasol.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOCAL = ("localhost", "127.0.0.1", "::1")
OPEN = ("/", "/healthz", "/readyz")  # without the token
UNCOUNTED = ("/healthz", "/readyz", "/metrics")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
CLOSE = (b"connection", b"close")  # else the server would read on, to throw away what comes
DRAINED_BYTES, DRAINED_SECONDS = 32 << 20, 5.0  # of a body that is too large, once that has been answered


class Gate:
    """Middleware that needs nothing of the service itself.

    - Bound to this machine, only its own names are served: a web page elsewhere that has its own name point here
      (DNS rebinding) is refused.
    - A browser's request from another site's page is refused, WebSockets included, which browsers let through.
    - With a token, all but the page and the health checks want it. A WebSocket's key is the session in its path.
    - Bodies have a cap and clients a time for their next bytes; only so many requests are in flight.
    """

    def __init__(self, app: App, *, limits: Limits, metrics: Metrics, token: str, local: bool) -> None:
        self.app, self.limits, self.metrics, self.token, self.local = app, limits, metrics, token, local
        self._flying = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            status, reason, text = refused
            self.metrics.refused.labels(reason).inc()
            if scope["type"] == "http":
                await _deny(_Body(scope, receive, self.limits, reason).drained(send), status, text)
            else:
                await send({"type": "websocket.close"})
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        self._flying += 1
        try:
            body = _Body(scope, receive, self.limits)
            await self.app(scope, body, self._counted(scope, body, body.drained(send)))
        finally:
            self._flying -= 1

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin, path = headers.get(b"host", ""), headers.get(b"origin"), scope["path"]
        if self.local and _name(host) not in LOCAL:
            return 421, "host", "the service answers to localhost: use it by that name, or start it with --host"
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "origin", "a page of another site may not call this service"
        if self.token and scope["type"] == "http" and path not in OPEN:
            given = headers.get(b"authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return 401, "token", "expected the header `Authorization: Bearer TOKEN`"
        if scope["type"] == "http" and path not in UNCOUNTED and self._flying >= self.limits.requests:
            return 503, "requests", f"{self.limits.requests} requests are in flight: try again later"
        if scope["type"] == "http":
            most, length = allowed(scope, self.limits), headers.get(b"content-length", "0")
            if not length.isdigit() or int(length) > most:
                return 413, "size", f"the body is larger than the {most} bytes that may be sent here"
        return None

    def _counted(self, scope: MutableMapping[str, Any], body: _Body, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                if body.refused:
                    message["headers"].append(CLOSE)
                    self.metrics.refused.labels(body.refused).inc()
                method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE") else "other"
                self.metrics.requests.labels(method, message["status"]).inc()
            await send(message)

        return sending


class _Body:
    """Receives a body, no larger than its cap and no slower than a client may be."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, limits: Limits, refused: str = "") -> None:
        self._receive, self._most, self._stall = receive, allowed(scope, limits), limits.stall_seconds
        self._size, self._more = 0, True
        self.refused = refused  # why, as the metrics call it

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._stall)
        except TimeoutError:
            self.refused = "slow"
            raise HTTPException(408, f"nothing came for {self._stall:g} s: send the body faster") from None
        self._size += len(message.get("body", b""))
        self._more = bool(message.get("more_body", False))
        if self._size > self._most:
            self.refused = "size"
            raise HTTPException(413, f"the body is larger than the {self._most} bytes that may be sent here")
        return message

    def drained(self, send: Send) -> Send:
        """``send`` that reads on for a while before a response ends by which the body was refused as too large.

        The server then closes the connection, and where bytes are left unread that is a reset: a client that is still
        sending would never see the response.
        """

        async def sending(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and self.refused == "size":
                await send({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return sending

    async def _drain(self) -> None:
        left = DRAINED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAINED_SECONDS):
                while self._more and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._more = bool(message.get("more_body", False))


def allowed(scope: MutableMapping[str, Any], limits: Limits) -> int:
    """Bytes that may be sent to a path."""
    uploads = scope["method"] == "PUT" and scope["path"].endswith("/media")
    return limits.upload_bytes if uploads else limits.body_bytes


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _deny(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS, CLOSE]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"retry-after", b"1")] if status == 503 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
