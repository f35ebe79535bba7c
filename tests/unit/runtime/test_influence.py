"""Influence of chunks on an answer: zero for unread chunks, positive for chunks that the text model reads."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from support.bundle import CLIP, MAX_CHUNKS, QUESTION, random_chunk, tiny_bundle

from mirasol.runtime.engine import Engine
from mirasol.runtime.influence import answer_tokens, influences
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import Chunk
from mirasol.serve.limits import Limits
from mirasol.serve.sessions import SessionManager


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_bundle(), threads=1)


def measured(session: Session) -> tuple[list[int], list[list[float] | None]]:
    memory, valid = session.memory
    ids, scores = answer_tokens(session.engine, QUESTION, memory, valid)
    return ids, list(influences(session.engine, QUESTION, ids, scores, memory, valid))


def test_the_tokens_are_the_answer_s(engine: Engine) -> None:
    session = Session(engine)
    session.push(*random_chunk(0))
    assert engine.tokenizer.decode(measured(session)[0]) == str(session.ask(QUESTION))


def test_a_place_without_a_chunk_and_a_lone_chunk_have_none(engine: Engine) -> None:
    session = Session(engine)
    session.push(*random_chunk(0))
    assert measured(session)[1] == [None] * MAX_CHUNKS


def test_every_remembered_chunk_is_measured_and_the_stream_stays_as_it_is(engine: Engine) -> None:
    session = Session(engine)
    for seed in range(3):
        session.push(*random_chunk(seed))
    before = session.snapshot()
    ids, found = measured(session)
    assert found[:2] == [None, None]
    assert all(len(row or []) == len(ids) and np.abs(row).max() > 1e-6 for row in found[2:])
    assert all(np.array_equal(before[name], array) for name, array in session.snapshot().items())


def test_it_is_of_the_answer_that_was_given_whatever_came_since(engine: Engine) -> None:
    async def run() -> dict[str, Any]:
        manager = SessionManager(engine, Limits())
        async with manager.run():
            session = manager.begin()
            await manager.start(session)
            for index in range(4):
                if index == 2:
                    answer = [piece async for piece in manager.answer(session, QUESTION)]
                await manager.push(session, Chunk(index, (index + 1) * CLIP.chunk_seconds, *random_chunk(index)))
            return {"answer": answer, **await manager.influence(session, QUESTION)}

    found = asyncio.run(run())
    assert "".join(found["tokens"]) == "".join(found["answer"])
    assert [chunk["index"] for chunk in found["chunks"]] == [0, 1]
