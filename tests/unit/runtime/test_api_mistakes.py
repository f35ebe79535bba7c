"""Typical mistakes in Python: refused at once, with the value and the expected one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.bundle import QUESTION, random_chunk, tiny_bundle

from mirasol.core.errors import MirasolError
from mirasol.runtime.model import Model, load

MISTAKES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "an empty question": (lambda m: asked(m, " \n"), "the question is empty"),
    "a question that is none": (lambda m: m.answer("a.mp4", None), "the question is None: expected a text"),
    "a text for questions": (lambda m: m.answers("a.mp4", "ab"), "questions is the text 'ab': expected a list"),
    "a file without a name": (lambda m: m.answer("", QUESTION), r"\. is a folder"),
    "an answer of no token": (lambda m: asked(m, QUESTION, 0), "max_tokens is 0: expected 1 or more"),
    "a chunk of no length": (lambda m: m.session(0), "chunk_seconds is 0: expected seconds"),
    "a chunk of negative length": (lambda m: m.session(-1), "chunk_seconds is -1: expected seconds"),
    "a chunk of a text": (lambda m: m.session("a"), "chunk_seconds is 'a': expected seconds"),
    "a chunk of no number": (lambda m: m.session(float("nan")), "chunk_seconds is nan: expected seconds"),
    "a chunk without end": (lambda m: m.session(float("inf")), "chunk_seconds is inf: expected seconds"),
    "no snapshot": (lambda m: m.session().restore(None), "a snapshot is a mapping of names to arrays, got NoneType"),
    "threads in words": (lambda _: load(tiny_bundle(), threads="2"), "threads is '2': expected a whole number from 0"),
    "threads below 0": (lambda _: load(tiny_bundle(), threads=-1), "threads is -1: expected a whole number from 0"),
    "threads without end": (lambda _: load(tiny_bundle(), threads=10_000), "threads is 10000: expected a whole number"),
}


def asked(model: Model, question: str, max_tokens: int | None = None) -> None:
    session = model.session()
    session.push(*random_chunk(0))
    session.ask(question, max_tokens)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(tiny_bundle())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(model: Model, mistake: str) -> None:
    call, message = MISTAKES[mistake]
    with pytest.raises(MirasolError, match=message):
        call(model)


@pytest.mark.parametrize("chunk", [([1, 2], None), ("x", None), (None, 3)])
def test_a_chunk_that_is_no_array_is_a_value_error(model: Model, chunk: tuple[Any, Any]) -> None:
    kinds = {"list": "video", "str": "video", "int": "samples"}
    kind = next(type(part).__name__ for part in chunk if part is not None)
    with pytest.raises(ValueError, match=rf"{kinds[kind]}: expected .* \(.*\), got {kind}"):
        model.session().push(*chunk)
