"""The page of `mirasol label`: clips to play and label, on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from mirasol import __version__
from mirasol.serve.app import add_errors, content_policy
from mirasol.serve.labels import Labels
from mirasol.serve.limits import Limits
from mirasol.serve.metrics import Metrics
from mirasol.serve.middleware import AccessMiddleware
from mirasol.serve.preview import preview
from mirasol.serve.run import listen
from mirasol.serve.schemas import Shape

PAGE = Path(__file__).with_name("label.html")
HOST = "127.0.0.1"
# Browsers refuse these files by their usual names, and play what is in them.
TYPES = {".mov": "video/mp4", ".m4v": "video/mp4", ".mkv": "video/webm", ".opus": "audio/ogg", ".m4a": "audio/mp4"}


class OnShow(Shape):
    """The clip that the page shows: a guard against a second tab."""

    media: str = Field(max_length=4096)


class Label(OnShow):
    """A label for the clip on show."""

    answer: str = Field(max_length=1000)


def make_label_app(labels: Labels) -> FastAPI:
    """The page over ``labels``, which starts and ends with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="mirasol-label-") as folder:
            app.state.folder = Path(folder)
            labels.start()
            try:
                yield
            finally:
                labels.close()

    app = FastAPI(title="mirasol label", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(AccessMiddleware, limits=Limits(), metrics=Metrics(), token="", local=True)
    add_errors(app)
    _routes(app, labels)
    _media(app, labels)
    return app


def _routes(app: FastAPI, labels: Labels) -> None:
    html = PAGE.read_text(encoding="utf-8")
    policy = content_policy(html)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    # Not async: each writes a file, in a thread.
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return labels.state()

    @app.post("/api/label")
    def label(given: Label) -> dict[str, Any]:
        labels.label(given.media, given.answer)
        return labels.state()

    @app.post("/api/skip")
    def skip(given: OnShow) -> dict[str, Any]:
        labels.skip(given.media)
        return labels.state()

    @app.post("/api/undo")
    def undo() -> dict[str, Any]:
        labels.undo()
        return labels.state()


def _media(app: FastAPI, labels: Labels) -> None:
    turn = asyncio.Lock()

    @app.get("/media/{media:path}")
    def media(media: str) -> FileResponse:
        path = labels.path_of(media)
        if not path.is_file():
            raise HTTPException(404, f"{media}: the file is gone")
        kind = TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
        return FileResponse(path, media_type=kind or "application/octet-stream")

    @app.get("/preview/{media:path}")
    async def playable(media: str) -> FileResponse:
        """The clip in a format of every browser; the last one is kept for the browser's next ranges."""
        path = labels.path_of(media)
        target = app.state.folder / "preview.mp4"
        async with turn:
            if getattr(app.state, "previewed", None) != media:
                app.state.previewed = None
                await asyncio.to_thread(preview, path, target)
                app.state.previewed = media
            return FileResponse(target, media_type="video/mp4")


def serve_labels(labels: Labels, *, port: int = 0, say: Callable[[str], None] = print) -> None:
    """Serve the page on this machine until Ctrl-C or SIGTERM, and open it where a desktop shows it.

    Raises:
        MirasolError: the port is in use.
    """
    app = make_label_app(labels)
    with listen(HOST, port, "another --port") as listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        say(address)
        if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            threading.Timer(0.5, webbrowser.open, [address]).start()
        uvicorn.Server(label_config(app)).run([listening])


def label_config(app: FastAPI) -> uvicorn.Config:
    """uvicorn's settings for the app of :func:`make_label_app`."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # a browser keeps the connection of a playing clip open
    )
