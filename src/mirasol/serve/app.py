"""The service: sessions, uploads and answers over HTTP, streams over WebSockets, one page, health and metrics."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mirasol import __version__
from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import check_question
from mirasol.runtime.engine import Engine
from mirasol.serve.limits import Limits
from mirasol.serve.middleware import Gate
from mirasol.serve.schemas import Answer, Health, LimitsView, MediaView, Question, Ready, Refusal, SessionView
from mirasol.serve.sessions import ClientSession, FullError, SessionManager, gone
from mirasol.serve.uploads import TooLargeError, save
from mirasol.serve.websocket import Connection

PAGE = File(__file__).with_name("page.html")
READY_SECONDS = 5.0
ABOUT = """Stream video and sound through a model and ask about it at any time.

`POST /api/sessions`, then either `PUT …/media` a file and `POST …/answer` a question, or open the WebSocket
`/api/sessions/{id}/stream` to play the upload or push chunks of a camera, and ask meanwhile. Messages of the
WebSocket are described in docs/streaming.md. A session ends with its WebSocket, or when nobody uses it.
"""
WHY = {
    400: "malformed",
    401: "no token, or a wrong one",
    403: "called from another site's page",
    404: "no such session, or it has ended",
    408: "the client was too slow",
    409: "the session is busy with another such request",
    413: "larger than may be sent",
    421: "called by a name that is not localhost",
    422: "cannot be used; the message says why",
    503: "too many sessions or requests: try again later",
    507: "the disk is full",
}
Id = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{32}$", description="The session's `id`.")]


def visit_of(request: Request, id: Id) -> ClientSession:
    """The session that a path names."""
    visit: ClientSession | None = request.app.state.hub.visits.get(id)
    if visit is None:
        raise HTTPException(404, "there is no such session: it may have ended")
    return visit


Known = Annotated[ClientSession, Depends(visit_of)]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals for the OpenAPI description."""
    return {status: {"model": Refusal, "description": WHY[status]} for status in sorted({401, 403, 421, *statuses})}


def make_app(engine: Engine, limits: Limits | None = None, *, token: str = "", local: bool = True) -> FastAPI:
    """The service over a loaded engine.

    Args:
        limits: what clients may take.
        token: what they must bring as `Authorization: Bearer TOKEN`; empty for none.
        local: bound to this machine only: answer to no other name than its own.
    """
    limits = limits or Limits()
    hub = SessionManager(engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with hub.run():
            yield

    app = FastAPI(
        title="mirasol", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.hub = hub
    app.add_middleware(Gate, limits=limits, metrics=hub.metrics, token=token, local=local)
    _errors(app)
    _pages(app, hub)
    _sessions(app, hub)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Never what was sent: it may hold what JSON cannot.
        return JSONResponse({"error": problems(error.errors())}, 422)

    @app.exception_handler(MirasolError)
    async def _refused(_: Request, error: MirasolError) -> JSONResponse:
        status = 503 if isinstance(error, FullError) else 413 if isinstance(error, TooLargeError) else 422
        return JSONResponse({"error": str(error)}, status, {"Retry-After": "5"} if status == 503 else None)


def _pages(app: FastAPI, hub: SessionManager) -> None:
    html = PAGE.read_text(encoding="utf-8")
    policy = _policy(html)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/healthz", tags=["service"], responses=refusals())
    async def healthz() -> Health:
        """Whether the service lives."""
        return Health()

    @app.get("/readyz", tags=["service"], responses=refusals(503))
    async def readyz() -> Ready:
        """Whether the engine's thread gets to new work in time."""
        try:
            await asyncio.wait_for(hub.compute(int), READY_SECONDS)
        except TimeoutError:
            raise HTTPException(503, f"the engine has been busy for {READY_SECONDS:g} s") from None
        return Ready(sessions=len(hub.visits), most=hub.limits.sessions)

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses=refusals() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counts and times in Prometheus' format."""
        return Response(hub.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _sessions(app: FastAPI, hub: SessionManager) -> None:
    @app.post("/api/sessions", status_code=201, tags=["sessions"], responses=refusals(503))
    async def begin() -> SessionView:
        """Begin a session. It ends by `DELETE`, with its WebSocket, or when nobody uses it."""
        return _view(hub, hub.begin())

    @app.get("/api/sessions/{id}", tags=["sessions"], responses=refusals(404, 422))
    async def look(visit: Known) -> SessionView:
        """How a session stands."""
        visit.touched = time.monotonic()
        return _view(hub, visit)

    @app.delete("/api/sessions/{id}", status_code=204, tags=["sessions"], responses=refusals(404, 422))
    async def end(visit: Known) -> None:
        """End a session; its file and its stream are forgotten."""
        hub.end(visit)

    @app.put(
        "/api/sessions/{id}/media",
        status_code=201,
        tags=["sessions"],
        responses=refusals(404, 408, 409, 413, 422, 507),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def upload(visit: Known, request: Request) -> MediaView:
        """Send a video or sound file as the body; it takes the place of an earlier one."""
        if visit.busy:
            raise HTTPException(409, "the session is in use: end it, or begin another")
        with visit.used():
            path = hub.folder / secrets.token_hex(16)
            try:
                hub.metrics.upload_bytes.inc(await save(request.stream(), path, hub.limits.upload_bytes))
            except ClientDisconnect:
                hub.end(visit)
                raise HTTPException(400, "the client went away") from None
            except OSError as error:
                raise HTTPException(507, f"the upload cannot be stored: {error.strerror}") from error
            if visit.ended:
                path.unlink(missing_ok=True)
                raise gone()
            return MediaView(**(await hub.upload(visit, path))._asdict())

    @app.post("/api/sessions/{id}/answer", tags=["sessions"], responses=refusals(404, 408, 409, 413, 422))
    async def answer(visit: Known, question: Question, request: Request) -> Answer:
        """Watch the upload to its end as fast as it goes, unless that was done, and answer a question about it."""
        check_length(question.question, hub.limits)
        check_question(hub.engine, question.question)
        if visit.busy:
            raise HTTPException(409, "the session is in use: ask over its WebSocket, or wait")
        with visit.used():
            if visit.stream is None and visit.media is not None:
                try:
                    await _watch(hub, visit, request)
                except MirasolError:
                    visit.stream = None  # a part of the file is no ground for an answer: the next one begins anew
                    raise
            pieces = [piece async for piece in hub.answer(visit, question.question)]
            if visit.stream is None:
                raise gone()
            seconds = visit.stream.chunks * _chunk_seconds(hub, visit)
            text, chunks = "".join(pieces), visit.stream.chunks
            return Answer(answer=text, complete=visit.complete, chunks=chunks, seconds=seconds)

    @app.websocket("/api/sessions/{id}/stream")
    async def stream(websocket: WebSocket, id: str) -> None:
        visit = hub.visits.get(id)
        if visit is None or visit.busy:
            await websocket.close(1008)
            return
        with visit.used():
            try:
                await Connection(hub, visit, websocket).run()
            finally:
                hub.end(visit)


async def _watch(hub: SessionManager, visit: ClientSession, request: Request) -> None:
    await hub.start(visit)
    while visit.media is not None and (chunk := await visit.media.chunk()) is not None:
        await hub.push(visit, chunk)
        if await request.is_disconnected():
            hub.end(visit)
            raise HTTPException(400, "the client went away")


def problems(errors: Any) -> str:
    """What is wrong with a request, all at once, without repeating it."""
    return "; ".join(f"{'.'.join(str(part)[:60] for part in e['loc'])}: {e['msg']}" for e in list(errors)[:8])


def check_length(question: str, limits: Limits) -> None:
    """Refuse a question that is too long.

    Raises:
        MirasolError: more characters than may be.
    """
    if len(question) > limits.question_characters:
        raise MirasolError(
            f"the question has {len(question)} characters, {limits.question_characters} are allowed: ask a shorter one"
        )


def _chunk_seconds(hub: SessionManager, visit: ClientSession) -> float:
    return visit.summary.chunk_seconds if visit.summary else hub.engine.contract.clip.chunk_seconds


def _view(hub: SessionManager, visit: ClientSession) -> SessionView:
    clip, limits = hub.engine.contract.clip, hub.limits
    return SessionView(
        id=visit.id,
        chunk_seconds=clip.chunk_seconds,
        frames_per_chunk=clip.frames_per_chunk,
        size=clip.size,
        sample_rate=clip.sample_rate,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        max_chunks=hub.engine.contract.model.max_chunks,
        live=clip.sampling == "rate",
        chunks=visit.stream.chunks if visit.stream else 0,
        media=MediaView(**visit.summary._asdict()) if visit.summary else None,
        limits=LimitsView(
            upload_bytes=limits.upload_bytes,
            question_characters=limits.question_characters,
            idle_seconds=limits.idle_seconds,
        ),
    )


def _policy(html: str) -> str:
    """The page's own script and style, by hash, and nothing from elsewhere."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')} blob:; worker-src blob:; style-src {hashes('style')}; "
        "connect-src 'self'; media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
