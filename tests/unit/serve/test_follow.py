"""The service takes over the registry's current release; open sessions keep the one that they began with."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import uvicorn
from fastapi import FastAPI
from support.bundle import random_chunk
from support.releases import ENDED, add_release
from support.scratch import until
from support.service import QUESTION, Service, camera_chunk, events, running

from mirasol.cli.serve import serve
from mirasol.runtime.engine import Engine
from mirasol.runtime.releases import VARIABLE, Registry
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk
from mirasol.serve import follow as module
from mirasol.serve.follow import Follower
from mirasol.serve.limits import Limits
from mirasol.serve.sessions import ClientSession, SessionManager

ANSWERS = {"model-1": "bell bell bell bell", "model-2": ""}


def load(folder: Path) -> Engine:
    return Engine(folder, threads=1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two releases with different answers; the first is current."""
    add_release(tmp_path, 1)
    add_release(tmp_path, 2, ENDED)
    registry = Registry(tmp_path)
    registry.promote("model-1")
    return registry


@pytest.fixture
def said() -> list[str]:
    return []


def within(registry: Registry, said: list[str], body: Callable[[SessionManager, Follower], Awaitable[None]]) -> None:
    """Run ``body`` in a service without a network, over the current release."""

    async def run() -> None:
        manager = SessionManager(load(registry.get("current").folder), Limits())
        async with manager.run():
            await body(manager, Follower(registry, load, said.append))

    asyncio.run(run())


async def ask(manager: SessionManager, session: ClientSession) -> str:
    if session.stream is None:
        await manager.start(session)
    await manager.push(session, Chunk(0, 0.5, *random_chunk(0)))
    return "".join([piece async for piece in manager.answer(session, QUESTION)])


def test_new_sessions_use_the_new_release_and_open_ones_their_own(registry: Registry, said: list[str]) -> None:
    async def body(manager: SessionManager, follower: Follower) -> None:
        old = manager.begin()
        registry.promote("model-2")
        await follower.look(manager)
        new = manager.begin()
        assert (old.release, new.release) == ("model-1", "model-2")
        assert [await ask(manager, session) for session in (old, new)] == list(ANSWERS.values())
        assert said == ["model-2 answers new sessions"]

    within(registry, said, body)


def test_the_old_engine_goes_with_its_last_session(registry: Registry, said: list[str]) -> None:
    async def body(manager: SessionManager, follower: Follower) -> None:
        sessions, engine = [manager.begin(), manager.begin()], weakref.ref(manager.engine)
        await ask(manager, sessions[0])
        registry.promote("model-2")
        await follower.look(manager)
        manager.end(sessions.pop())
        assert engine() is not None
        manager.end(sessions.pop())
        assert engine() is None

    within(registry, said, body)


def test_a_third_release_waits_for_the_sessions_of_the_first(registry: Registry, said: list[str]) -> None:
    add_release(registry.folder, 3)

    async def body(manager: SessionManager, follower: Follower) -> None:
        sessions = [manager.begin()]
        for name in ("model-2", "model-3"):
            registry.promote(name)
            await follower.look(manager)
        assert manager.release == "model-2"
        manager.end(sessions.pop())
        await follower.look(manager)
        assert manager.release == "model-3"
        assert said[1] == "model-3 waits until the last session of model-1 has ended"

    within(registry, said, body)


def test_a_rollback_takes_the_engine_that_open_sessions_still_use(registry: Registry, said: list[str]) -> None:
    async def body(manager: SessionManager, follower: Follower) -> None:
        session, engine = manager.begin(), manager.engine
        registry.promote("model-2")
        await follower.look(manager)
        registry.rollback()
        await follower.look(manager)
        assert manager.engine is engine is session.engine

    within(registry, said, body)


def test_a_damaged_release_leaves_the_old_one_in_service(registry: Registry, said: list[str]) -> None:
    async def body(manager: SessionManager, follower: Follower) -> None:
        registry.promote("model-2")
        (registry.folder / "model-2" / "text_step.onnx").write_bytes(b"no graph")
        for _ in range(2):
            await follower.look(manager)
        assert await ask(manager, manager.begin()) == ANSWERS["model-1"]
        assert (manager.release, manager.failed) == ("model-1", "model-2")
        metrics = manager.metrics.text().decode()
        assert 'mirasol_release{release="model-1"} 1.0' in metrics
        assert "mirasol_release_switches_failed_total 1.0" in metrics, "tried again at once"
        (line,) = said
        assert line.startswith("warning: model-2 cannot be used, model-1 stays: ") and "text_step.onnx" in line

    within(registry, said, body)


def test_a_damaged_release_is_tried_again_later(
    registry: Registry, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    graph = registry.folder / "model-2" / "text_step.onnx"
    content = graph.read_bytes()

    async def body(manager: SessionManager, follower: Follower) -> None:
        registry.promote("model-2")
        graph.write_bytes(b"no graph")
        await follower.look(manager)
        graph.write_bytes(content)
        await follower.look(manager)
        assert (manager.release, manager.failed) == ("model-2", None)

    within(registry, said, body)


def test_an_engine_that_does_not_answer_is_not_taken(
    registry: Registry, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Session.ask
    monkeypatch.setattr(Session, "ask", lambda *given: dataclasses.replace(ask(*given), score=float("nan")))

    async def body(manager: SessionManager, follower: Follower) -> None:
        registry.promote("model-2")
        await follower.look(manager)
        assert (manager.release, manager.failed) == ("model-1", "model-2")

    within(registry, said, body)


def test_an_unreadable_registry_is_said_once(registry: Registry, said: list[str]) -> None:
    async def body(manager: SessionManager, follower: Follower) -> None:
        (registry.folder / "current.json").write_text("{")
        for _ in range(2):
            await follower.look(manager)
        assert len(said) == 1 and "current.json is damaged" in said[0]
        registry._write(["model-1"])
        await follower.look(manager)
        assert manager.failed is None

    within(registry, said, body)


def test_a_release_with_damaged_samples_is_refused(registry: Registry, said: list[str]) -> None:
    samples = registry.folder / "model-2" / "samples"
    samples.mkdir()
    (samples / "samples.json").write_text('[{"file": "gone.mp4"}]')

    async def body(manager: SessionManager, follower: Follower) -> None:
        registry.promote("model-2")
        await follower.look(manager)
        assert (manager.release, manager.failed) == ("model-1", "model-2")
        assert "gone.mp4 is missing" in said[0]

    within(registry, said, body)


@pytest.fixture
def service(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service over the registry, looking at it often."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    engine = load(registry.get("current").folder)
    with running(engine=engine, follow=Follower(registry, load, lambda line: None)) as found:
        yield found


def test_a_stream_loses_nothing_while_the_release_changes(service: Service, registry: Registry) -> None:
    def played(switch: Callable[[], None]) -> list[object]:
        told: list[object] = []
        with service.socket(service.session()) as socket:
            for seed in range(6):
                if seed == 3:
                    switch()
                socket.send(camera_chunk(seed)[0])
                told.append(events(socket, "chunk")[-1]["index"])
                socket.send(json.dumps({"type": "ask", "question": QUESTION}))
                answer = events(socket, "answer")[-1]
                told.append({key: value for key, value in answer.items() if key != "ms"})
        return told

    def switch() -> None:
        registry.promote("model-2")
        until(lambda: service.call("GET", "/readyz")[1]["release"] == "model-2")

    assert played(lambda: None) == played(switch)


def test_the_command_holds_no_engine(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[Engine | None] = []

    def run(server: uvicorn.Server, _: object) -> None:
        manager: SessionManager = cast(FastAPI, server.config.app).state.manager
        manager.use(load(registry.get("model-2").folder))
        gc.collect()
        alive.append(manager.earlier())

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setenv(VARIABLE, str(registry.folder))
    serve(bundle=Path("release:current"), port=0)
    assert alive == [None]


def test_a_session_names_its_release(service: Service) -> None:
    path = service.session()
    assert service.call("GET", path)[1]["release"] == "model-1"
