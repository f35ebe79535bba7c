"""A question about a file, answered."""

from __future__ import annotations

from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import open_source


def answer(file: str | Path, question: str, bundle: str | Path, *, threads: int = 0, provider: str = "auto") -> str:
    """Watch ``file`` from its beginning to its end and answer ``question`` about it.

    A file longer than the model's memory is answered from its last ``max_chunks`` chunks.

    Args:
        file: a media file, or a folder of them that is watched as one stream.
        question: as the model was trained to be asked.
        bundle: the folder that `mirasol stage export` wrote.
        threads: CPU threads; 0 leaves the choice to the engine.
        provider: who computes, as :class:`Engine` knows it.

    Raises:
        MirasolError: the file, the bundle or the provider cannot be used, or the question is too long or empty.
    """
    engine = Engine(bundle, threads=threads, provider=provider)
    check_question(engine, question)
    source = open_source(file, engine.contract.clip)
    session = Session(engine, source.chunk_seconds)
    for chunk in source:
        session.push(chunk.video, chunk.samples)
    return session.ask(question)


def check_question(engine: Engine, question: str) -> None:
    """Refuse a question before any chunk is decoded for it.

    Raises:
        MirasolError: it is empty, or leaves no room for an answer in the text cache.
    """
    if not question.strip():
        raise MirasolError("the question is empty: ask, for example, 'Classify the video audio clip.'")
    engine.prompt(question)
