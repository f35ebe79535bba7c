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
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mirasol import __version__
from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.runtime.samples import SAMPLES, Sample, read_samples
from mirasol.serve.follow import Follower
from mirasol.serve.limits import Limits
from mirasol.serve.middleware import AccessMiddleware
from mirasol.serve.schemas import (
    About,
    Answer,
    Health,
    LimitsView,
    MediaView,
    Question,
    Ready,
    Refusal,
    SampleView,
    SessionView,
)
from mirasol.serve.sessions import ClientSession, FullError, SessionManager, facts_of, gone
from mirasol.serve.uploads import TooLargeError, save
from mirasol.serve.websocket import Connection

PAGE = File(__file__).with_name("page.html")
READY_SECONDS = 5.0
ABOUT = """Stream video and sound through a model and ask about it at any time.

`POST /api/sessions`, then either `PUT …/media` a file and `POST …/answer` a question, or open the WebSocket
`/api/sessions/{id}/stream` to play the upload or push chunks of a camera, and ask meanwhile. Messages of the
WebSocket are described in docs/streaming.md. A session ends with its WebSocket, or when it is idle.
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
BINARY_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
Id = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{32}$", description="The session's `id`.")]


def session_of(request: Request, id: Id) -> ClientSession:
    """The session in a request's path."""
    session: ClientSession | None = request.app.state.manager.sessions.get(id)
    if session is None:
        raise HTTPException(404, "no such session: it may have ended")
    return session


KnownSession = Annotated[ClientSession, Depends(session_of)]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for the OpenAPI description."""
    return {status: {"model": Refusal, "description": WHY[status]} for status in sorted({401, 403, 421, *statuses})}


def make_app(
    engine: Engine,
    limits: Limits | None = None,
    *,
    token: str = "",
    local: bool = True,
    samples: File | None = None,
    follow: Follower | None = None,
) -> FastAPI:
    """The service over a loaded engine.

    Args:
        limits: resources that clients may use.
        token: the secret that clients send as `Authorization: Bearer TOKEN`; empty for none.
        local: refuse requests under any host name but localhost's.
        samples: a folder with clips that the page offers, by default `samples` in the bundle in use, if it has one.
        follow: changes the engine for new sessions while the service runs.

    Raises:
        MirasolError: ``samples`` has no clip, or is damaged.
    """
    limits = limits or Limits()
    manager = SessionManager(engine, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with manager.run():
            following = asyncio.create_task(follow.run(manager)) if follow else None
            try:
                yield
            finally:
                if following:
                    following.cancel()

    app = FastAPI(
        title="mirasol", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.manager = manager
    app.add_middleware(AccessMiddleware, limits=limits, metrics=manager.metrics, token=token, local=local)
    add_errors(app)
    _pages(app, manager)
    _samples(app, manager, samples)
    _sessions(app, manager)
    return app


def add_errors(app: FastAPI) -> None:
    """Errors as JSON: ``{"error": text}``."""

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may hold values that JSON cannot.
        return JSONResponse({"error": problems(error.errors())}, 422)

    @app.exception_handler(MirasolError)
    async def _refused(_: Request, error: MirasolError) -> JSONResponse:
        status = 503 if isinstance(error, FullError) else 413 if isinstance(error, TooLargeError) else 422
        return JSONResponse({"error": str(error)}, status, {"Retry-After": "5"} if status == 503 else None)


def _pages(app: FastAPI, manager: SessionManager) -> None:
    html = PAGE.read_text(encoding="utf-8")
    policy = content_policy(html)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/healthz", tags=["service"], responses=refusals())
    async def healthz() -> Health:
        """The service is running."""
        return Health()

    @app.get("/readyz", tags=["service"], responses=refusals(503))
    async def readyz() -> Ready:
        """The engine's thread starts new work in time."""
        try:
            await asyncio.wait_for(manager.compute(int), READY_SECONDS)
        except TimeoutError:
            raise HTTPException(503, f"the engine has been busy for {READY_SECONDS:g} s") from None
        most, release, failed = manager.limits.sessions, manager.release, manager.failed
        return Ready(sessions=len(manager.sessions), most=most, release=release, failed=failed)

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses=refusals() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counts and times in Prometheus' format."""
        return Response(manager.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _samples(app: FastAPI, manager: SessionManager, given: File | None) -> None:
    read: dict[File, list[Sample]] = {}

    def clips() -> dict[str, tuple[Sample, File]]:
        folder = given or manager.engine.bundle / SAMPLES
        if folder not in read:
            read.clear()
            read[folder] = read_samples(folder) if given or folder.is_dir() else []
        return {one.file: (one, folder / one.file) for one in read[folder]}

    clips()  # a damaged folder is refused at the start

    @app.get("/api/about", tags=["service"], responses=refusals())
    async def about() -> About:
        """Questions that the model learnt, and sample clips."""
        views = [SampleView(file=s.file, question=s.question, bytes=p.stat().st_size) for s, p in clips().values()]
        return About(prompts=list(manager.engine.contract.prompts or ()), samples=views)

    @app.get("/api/samples/{file}", tags=["service"], response_class=FileResponse, responses=refusals(404))
    async def sample(file: str) -> FileResponse:
        """The file of a sample clip."""
        if file not in (files := clips()):
            raise HTTPException(404, "no such sample clip: /api/about lists them")
        return FileResponse(files[file][1])


def _sessions(app: FastAPI, manager: SessionManager) -> None:
    @app.post("/api/sessions", status_code=201, tags=["sessions"], responses=refusals(503))
    async def begin() -> SessionView:
        """Begin a session. It ends by `DELETE`, with its WebSocket, or when it is idle."""
        return _view(manager, manager.begin())

    @app.get("/api/sessions/{id}", tags=["sessions"], responses=refusals(404, 422))
    async def look(session: KnownSession) -> SessionView:
        """The state of a session."""
        session.touched = time.monotonic()
        return _view(manager, session)

    @app.delete("/api/sessions/{id}", status_code=204, tags=["sessions"], responses=refusals(404, 422))
    async def end(session: KnownSession) -> None:
        """End a session and delete its file and its stream."""
        manager.end(session)

    @app.put(
        "/api/sessions/{id}/media",
        status_code=201,
        tags=["sessions"],
        responses=refusals(404, 408, 409, 413, 422, 507),
        openapi_extra={"requestBody": BINARY_BODY},
    )
    async def upload(session: KnownSession, request: Request) -> MediaView:
        """Send a video or sound file as the body; it replaces an earlier one."""
        if session.busy:
            raise HTTPException(409, "the session is in use: end it, or begin another")
        with session.used():
            path = manager.folder / secrets.token_hex(16)
            try:
                manager.metrics.upload_bytes.inc(await save(request.stream(), path, manager.limits.upload_bytes))
            except ClientDisconnect:
                manager.end(session)
                raise HTTPException(400, "the client went away") from None
            except OSError as error:
                raise HTTPException(507, f"the upload cannot be stored: {error.strerror}") from error
            if session.ended:
                path.unlink(missing_ok=True)
                raise gone()
            return MediaView(**(await manager.upload(session, path))._asdict())

    @app.post("/api/sessions/{id}/answer", tags=["sessions"], responses=refusals(404, 408, 409, 413, 422))
    async def answer(session: KnownSession, question: Question, request: Request) -> Answer:
        """Watch the upload to its end as fast as possible, unless already done, and answer a question about it."""
        manager.check_question(session, question.question)
        if session.busy:
            raise HTTPException(409, "the session is in use: ask over its WebSocket, or wait")
        with session.used():
            if session.stream is None and session.upload is not None:
                try:
                    await _watch(manager, session, request)
                except MirasolError:
                    session.stream = None  # no answer from a part of the file: the next one starts again
                    raise
            text = "".join([piece async for piece in manager.answer(session, question.question)])
            if (stream := session.stream) is None or session.answer is None:
                raise gone()
            facts = facts_of(session.answer) | {"release": session.release}
            return Answer(answer=text, **facts, chunks=stream.chunks, seconds=stream.seconds)

    @app.websocket("/api/sessions/{id}/stream")
    async def stream(websocket: WebSocket, id: str) -> None:
        session = manager.sessions.get(id)
        if session is None or session.busy:
            await websocket.close(1008)
            return
        with session.used():
            try:
                await Connection(manager, session, websocket).run()
            finally:
                manager.end(session)


async def _watch(manager: SessionManager, session: ClientSession, request: Request) -> None:
    await manager.start(session)
    while session.upload is not None and (chunk := await session.upload.chunk()) is not None:
        await manager.push(session, chunk)
        if await request.is_disconnected():
            manager.end(session)
            raise HTTPException(400, "the client went away")


def problems(errors: Any) -> str:
    """The errors of a request in one text, without the request's own values."""
    return "; ".join(f"{'.'.join(str(part)[:60] for part in e['loc'])}: {e['msg']}" for e in list(errors)[:8])


def _view(manager: SessionManager, session: ClientSession) -> SessionView:
    contract = session.engine.contract
    clip = contract.clip
    return SessionView(
        id=session.id,
        release=session.release,
        chunk_seconds=clip.chunk_seconds,
        frames_per_chunk=clip.frames_per_chunk,
        size=clip.size,
        sample_rate=clip.sample_rate,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        max_chunks=contract.model.max_chunks,
        live=clip.sampling == "rate",
        chunks=session.stream.chunks if session.stream else 0,
        media=MediaView(**session.summary._asdict()) if session.summary else None,
        limits=LimitsView(**{name: getattr(manager.limits, name) for name in LimitsView.model_fields}),
    )


def content_policy(html: str) -> str:
    """Content security policy: the page's own script and style by hash, nothing else."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')} blob:; worker-src blob:; style-src {hashes('style')}; "
        "connect-src 'self'; media-src 'self' blob:; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
