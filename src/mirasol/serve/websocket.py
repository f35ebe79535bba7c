"""A session's WebSocket: receives orders and chunks, sends the model's inputs and answers.

A text message is an order (JSON, :data:`~mirasol.serve.schemas.Order`) or, from the service, an event. A binary
message is the next chunk of a camera:

    4 bytes   "MIR1"
    1 byte    1 for video, 2 for sound, 3 for both, 0 for a missing chunk
    3 bytes   0
    K*H*3/2*W bytes of video: K frames, planar YUV 4:2:0, limited range, BT.601
    2*S bytes of sound: S samples, 16-bit signed little-endian, S as chunk_edge gives it
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from mirasol.core.errors import MirasolError
from mirasol.media.log_mel import chunk_edge
from mirasol.runtime.features import ChunkFeatures, Frames, Samples
from mirasol.runtime.sources.files import Chunk
from mirasol.serve.schemas import Ask, Order, Play
from mirasol.serve.sessions import ClientSession, SessionManager, facts_of, gone

MAGIC = b"MIR1"
PICTURE, SOUND = 1, 2
MALFORMED, WRONG, AWAY = 1007, 1003, 1001  # codes of closing
FULL_SCALE = 32768.0
ORDER: TypeAdapter[Play | Ask] = TypeAdapter(Order)


class MalformedError(Exception):
    """A message that breaks the protocol; the connection ends."""


def message_bytes(manager: SessionManager) -> int:
    """Size of the largest valid message, of any engine in use."""
    sizes = [1 << 16]
    for engine in filter(None, (manager.engine, manager.earlier())):
        clip = engine.contract.clip
        chunk = clip.frames_per_chunk * clip.size * clip.size * 3 // 2
        sizes.append(len(MAGIC) + 4 + chunk + 2 * (round(clip.chunk_seconds * clip.sample_rate) + 1))
    return max(sizes)


class Connection:
    """The connection of one client."""

    def __init__(self, manager: SessionManager, session: ClientSession, socket: WebSocket) -> None:
        self.manager, self.session, self.socket = manager, session, socket
        self.clip = session.engine.contract.clip
        self._sending = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._camera = False
        self._chunk_seconds = self.clip.chunk_seconds
        self._shown = ChunkFeatures(self.clip)  # computes the model's inputs again, for display

    async def run(self) -> None:
        """Serve the client until it leaves, is idle, or breaks the protocol."""
        await self.socket.accept()
        over = asyncio.ensure_future(self.session.over.wait())
        try:
            while await self._next(over):
                pass
        except MalformedError as error:
            await self._close(MALFORMED, str(error))
        except MirasolError as error:
            await self._close(WRONG, str(error))
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            pass  # the client has left or reads no more
        finally:
            over.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _next(self, over: asyncio.Future[Any]) -> bool:
        receiving = asyncio.ensure_future(self.socket.receive())
        try:
            while True:
                running = {task for task in self._tasks.values() if not task.done()}
                done, _ = await asyncio.wait(
                    {receiving, over, *running},
                    timeout=self.manager.limits.idle_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in [t for t in self._tasks.values() if t.done()]:
                    self._tasks = {name: t for name, t in self._tasks.items() if t is not task}
                    task.result()
                if over.done():
                    await self._close(AWAY, str(gone()))
                    return False
                if receiving.done():
                    break
                if not done and not running:
                    await self._close(AWAY, f"nothing happened for {self.manager.limits.idle_seconds:g} s")
                    return False
        finally:
            if not receiving.done():
                receiving.cancel()
        message = receiving.result()
        if message["type"] != "websocket.receive":
            return False
        if message.get("bytes") is not None:
            await self._chunk(message["bytes"])
        else:
            await self._order(message.get("text") or "")
        return True

    async def _order(self, text: str) -> None:
        try:
            order = ORDER.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise MalformedError(f"not an order: {first['msg']}") from None
        if isinstance(order, Ask):
            await self._begin("ask", self._ask(order))
        elif self.session.upload is None:
            await self._send("error", message="nothing to play: upload a file first")
        else:
            await self._begin("play", self._play(order.pace == "live"))

    async def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        if name in self._tasks and not self._tasks[name].done():
            work.close()
            await self._send("error", message=f"one {name} at a time: wait for the one that is under way")
        else:
            self._tasks[name] = asyncio.create_task(work)

    async def _play(self, live: bool) -> None:
        try:
            self._chunk_seconds = await self.manager.start(self.session)
            self._shown = ChunkFeatures(self.clip, self._chunk_seconds)
            await self._send("started", chunk_seconds=self._chunk_seconds)
            began, count = time.monotonic(), 0
            while (upload := self.session.upload) is not None and (chunk := await upload.chunk()) is not None:
                if live:
                    await asyncio.sleep(max(0.0, began + chunk.end - time.monotonic()))
                behind = time.monotonic() - began - chunk.end if live else 0.0
                self.manager.metrics.behind.set(behind)
                await self._take(chunk, behind)
                count += 1
            await self._send("ended", chunks=count)
        except MirasolError as error:
            await self._send("error", message=str(error))

    async def _chunk(self, message: bytes) -> None:
        """A camera's chunk, pushed before the next message is read, so that a fast client waits."""
        if self.session.upload is not None:
            raise MirasolError("the session has an upload: begin another one for a camera")
        if self.clip.sampling == "spread":
            raise MirasolError("this model spreads its chunks over a whole file: upload one")
        if not self._camera:
            self._camera = True
            await self.manager.start(self.session)
        index = self.session.stream.chunks if self.session.stream else 0
        await self._take(self._unpack(message, index), 0.0)

    def _unpack(self, message: bytes, index: int) -> Chunk:
        clip = self.clip
        if len(message) < 8 or message[:4] != MAGIC or message[4] > PICTURE | SOUND or any(message[5:8]):
            raise MalformedError(
                "not a chunk: expected MIR1, its content (0, 1, 2 or 3), three zeros, then that content"
            )
        kinds = message[4]
        shape = (clip.frames_per_chunk, clip.size * 3 // 2, clip.size)
        edges = [chunk_edge(i, clip.chunk_seconds, clip.sample_rate) for i in (index, index + 1)]
        picture = int(np.prod(shape)) if kinds & PICTURE else 0
        sound = 2 * (edges[1] - edges[0]) if kinds & SOUND else 0
        if len(message) != 8 + picture + sound:
            raise MalformedError(f"chunk {index} has {len(message)} bytes, expected {8 + picture + sound}")
        video = np.frombuffer(message, np.uint8, picture, 8).reshape(shape) if picture else None
        samples = None
        if sound:
            samples = (np.frombuffer(message, "<i2", sound // 2, 8 + picture) / FULL_SCALE).astype(np.float32)
        return Chunk(index, (index + 1) * clip.chunk_seconds, video, samples)

    async def _take(self, chunk: Chunk, behind: float) -> None:
        seconds = await self.manager.push(self.session, chunk)
        stream = self.session.stream
        inputs = await asyncio.to_thread(self._shown.push, chunk.video, chunk.samples)
        await self._send(
            "chunk",
            index=chunk.index,
            seconds=round(chunk.end, 6),
            ms=round(seconds * 1e3, 3),
            behind=round(behind, 3),
            state_bytes=stream.state_bytes if stream else 0,
            frames=_base64(inputs.video[0]) if chunk.video is not None else None,
            mel=_base64(_levels(inputs.audio[0])) if chunk.samples is not None else None,
        )

    async def _ask(self, ask: Ask) -> None:
        try:
            began = time.perf_counter()
            pieces = []
            async for piece in self.manager.answer(self.session, ask.question):
                pieces.append(piece)
                await self._send("piece", text=piece)
            chunks = self.session.basis.chunks if self.session.basis else 0
            ms = round((time.perf_counter() - began) * 1e3, 3)
            if (answer := self.session.answer) is None:
                raise gone()
            facts = {"answer": "".join(pieces), **facts_of(answer), "chunks": chunks, "ms": ms}
            facts["release"] = self.session.release
            await self._send("answer", question=ask.question, **facts)
            if ask.influence:
                await self._send("influence", **await self.manager.influence(self.session, ask.question))
        except MirasolError as error:
            await self._send("error", message=str(error))

    async def _send(self, kind: str, **fields: Any) -> None:
        """Send an event; a client that reads nothing for too long counts as gone."""
        async with self._sending:
            await asyncio.wait_for(self.socket.send_json({"type": kind} | fields), self.manager.limits.stall_seconds)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(Exception):  # the client may have left
            await self._send("error", message=reason)
            await self.socket.close(code, reason.encode()[:120].decode(errors="ignore"))


def _base64(array: Frames) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _levels(mel: Samples) -> Frames:
    """A spectrogram, -1 (silence) to 3 (full scale), in 256 steps."""
    levels: Frames = np.clip(np.rint((mel + 1) * (255 / 4)), 0, 255).astype(np.uint8)
    return levels
