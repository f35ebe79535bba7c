"""Access control and size limits in front of the service."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

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
CLOSE = (b"connection", b"close")  # else the server would read and discard the rest
DRAINED_BYTES, DRAINED_SECONDS = 32 << 20, 5.0  # of a refused body, after the response


class AccessMiddleware:
    """Refuses requests before they reach the service.

    - A service for this machine accepts only localhost's names (against DNS rebinding).
    - Requests from another site's page are refused, including WebSockets, which browsers do not restrict.
    - With a token, all but the page and the health checks require it. A WebSocket's key is the session in its path.
    - The size of a body, the time until its next bytes and the number of concurrent requests are limited.
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
                body = _Body(scope, receive, self.limits, reason)
                await _denial(status, text)(scope, receive, body.drained(send))
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
    """Receives a body within the limits of size and time."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, limits: Limits, refused: str = "") -> None:
        self._receive, self._most, self._stall = receive, allowed(scope, limits), limits.stall_seconds
        self._size, self._more = 0, True
        self.refused = refused  # the reason's name in the metrics

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
        """``send`` that first reads more of a body refused as too large.

        The server then closes the connection. With unread bytes that is a reset, and a client that is still sending
        would never see the response.
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
    """Most bytes of a request's body."""
    uploads = scope["method"] == "PUT" and scope["path"].endswith("/media")
    return limits.upload_bytes if uploads else limits.body_bytes


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _denial(status: int, text: str) -> JSONResponse:
    response = JSONResponse(
        {"error": text}, status, {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(status)
    )
    response.raw_headers += [*HEADERS, CLOSE]
    return response
