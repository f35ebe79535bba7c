"""A session's WebSocket: orders and chunks come in, what the model sees and says goes out.

A text message is an order (JSON, :data:`~mirasol.serve.schemas.Order`) or, from the service, an event. A binary
message is the next chunk of a camera:

    4 bytes   "MIR1"
    1 byte    1 if a picture follows, 2 if sound follows, 3 for both; 0 for a chunk that did not come
    3 bytes   0
    K*H*3/2*W bytes, if there is a picture: K frames, planar YUV 4:2:0, limited range, BT.601
    2*S bytes, if there is sound: S samples, 16-bit signed little-endian, S as chunk_edge gives it
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
from mirasol.runtime.features import ChunkFeatures, Inputs
from mirasol.runtime.sources.files import Chunk
from mirasol.serve.schemas import Ask, Order, Play
from mirasol.serve.sessions import ClientSession, SessionManager, gone

MAGIC = b"MIR1"
PICTURE, SOUND = 1, 2
MALFORMED, WRONG, AWAY = 1007, 1003, 1001  # codes of closing
FULL_SCALE = 32768.0
ORDER: TypeAdapter[Play | Ask] = TypeAdapter(Order)


class MalformedError(Exception):
    """A message that no client of good will sends; the connection ends."""


def message_bytes(hub: SessionManager) -> int:
    """The largest message that is of any use."""
    clip = hub.engine.contract.clip
    chunk = clip.frames_per_chunk * clip.size * clip.size * 3 // 2
    return max(1 << 16, len(MAGIC) + 4 + chunk + 2 * (round(clip.chunk_seconds * clip.sample_rate) + 1))


class Connection:
    """One client, from its first message to its end."""

    def __init__(self, hub: SessionManager, visit: ClientSession, socket: WebSocket) -> None:
        self.hub, self.visit, self.socket = hub, visit, socket
        self.clip = hub.engine.contract.clip
        self._sending = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._camera = False
        self._chunk_seconds = self.clip.chunk_seconds
        self._shown = ChunkFeatures(self.clip)  # the model's own input, made once more to be looked at

    async def run(self) -> None:
        """Serve the client until it goes, is idle, or sends what it must not."""
        await self.socket.accept()
        over = asyncio.ensure_future(self.visit.over.wait())
        try:
            while await self._next(over):
                pass
        except MalformedError as error:
            await self._close(MALFORMED, str(error))
        except MirasolError as error:
            await self._close(WRONG, str(error))
        except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
            pass  # it has gone, or takes nothing any more
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
                    timeout=self.hub.limits.idle_seconds,
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
                    await self._close(AWAY, f"nothing happened for {self.hub.limits.idle_seconds:g} s")
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
            if len(order.question) > self.hub.limits.question_characters:
                most = self.hub.limits.question_characters
                await self._send("error", message=f"the question is longer than {most} characters: ask a shorter one")
            else:
                await self._begin("ask", self._ask(order))
        elif self.visit.media is None:
            await self._send("error", message="there is nothing to play: upload a file first")
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
            self._chunk_seconds = await self.hub.start(self.visit)
            self._shown = ChunkFeatures(self.clip, self._chunk_seconds)
            await self._send("started", chunk_seconds=self._chunk_seconds)
            began, count = time.monotonic(), 0
            while (media := self.visit.media) is not None and (chunk := await media.chunk()) is not None:
                if live:
                    await asyncio.sleep(max(0.0, began + chunk.end - time.monotonic()))
                behind = time.monotonic() - began - chunk.end if live else 0.0
                self.hub.metrics.behind.set(behind)
                await self._take(chunk, behind)
                count += 1
            await self._send("ended", chunks=count)
        except MirasolError as error:
            await self._send("error", message=str(error))

    async def _chunk(self, message: bytes) -> None:
        """A chunk of a camera: taken in before the next message is read, so that a fast client has to wait."""
        if self.visit.media is not None:
            raise MirasolError("the session has an upload: begin another one for a camera")
        if self.clip.sampling == "spread":
            raise MirasolError("this model spreads its chunks over a whole file: upload one")
        if not self._camera:
            self._camera = True
            await self.hub.start(self.visit)
        index = self.visit.stream.chunks if self.visit.stream else 0
        await self._take(self._unpack(message, index), 0.0)

    def _unpack(self, message: bytes, index: int) -> Chunk:
        clip = self.clip
        if len(message) < 8 or message[:4] != MAGIC or message[4] > PICTURE | SOUND or any(message[5:8]):
            raise MalformedError("not a chunk: expected MIR1, what it holds (0, 1, 2 or 3), three zeros, and that")
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
        seconds = await self.hub.push(self.visit, chunk)
        stream = self.visit.stream
        inputs = await asyncio.to_thread(self._shown.push, chunk.video, chunk.samples)
        await self._send(
            "chunk",
            index=chunk.index,
            seconds=round(chunk.end, 6),
            ms=round(seconds * 1e3, 3),
            behind=round(behind, 3),
            state_bytes=stream.state_bytes if stream else 0,
            frames=_frames(inputs) if chunk.video is not None else None,
            mel=_mel(inputs) if chunk.samples is not None else None,
        )

    async def _ask(self, ask: Ask) -> None:
        try:
            began = time.perf_counter()
            pieces = []
            async for piece in self.hub.answer(self.visit, ask.question):
                pieces.append(piece)
                await self._send("piece", text=piece)
            chunks = self.visit.basis.chunks if self.visit.basis else 0
            ms = round((time.perf_counter() - began) * 1e3, 3)
            text, complete = "".join(pieces), self.visit.complete
            await self._send("answer", question=ask.question, answer=text, complete=complete, chunks=chunks, ms=ms)
            if ask.influence:
                await self._send("influence", **await self.hub.influence(self.visit, ask.question))
        except MirasolError as error:
            await self._send("error", message=str(error))

    async def _send(self, kind: str, **fields: Any) -> None:
        """An event; a client that takes nothing for too long counts as gone."""
        async with self._sending:
            await asyncio.wait_for(self.socket.send_json({"type": kind} | fields), self.hub.limits.stall_seconds)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(Exception):  # it may have gone
            await self._send("error", message=reason)
            await self.socket.close(code, reason.encode()[:120].decode(errors="ignore"))


def _frames(inputs: Inputs) -> str:
    """K frames as the model sees them, planar YUV 4:2:0."""
    return base64.b64encode(inputs.video[0].tobytes()).decode()


def _mel(inputs: Inputs) -> str:
    """The spectrogram [A, M] as the model hears it, -1 (silence) to 3 (full scale) in 256 steps."""
    levels = np.clip(np.rint((inputs.audio[0] + 1) * (255 / 4)), 0, 255).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode()
