"""The front door: a loaded bundle that answers about files and streams."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import PARTIAL, Answer, Flag
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import FileSource, Source, open_source
from mirasol.runtime.sources.open import open_stream
from mirasol.runtime.stream import Moment, moments


def load(bundle: str | Path = "build/bundle", *, threads: int = 0, provider: str = "auto") -> Model:
    """Load a bundle, without PyTorch.

    Args:
        bundle: the folder that `mirasol stage export` wrote, or a release: `release:current`, `release:model-3`.
        threads: CPU threads; 0 leaves the choice to the engine.
        provider: the compute backend, see :class:`~mirasol.runtime.engine.Engine`.

    Raises:
        MirasolError: the bundle is missing, damaged or of another version, or the provider cannot be used.
    """
    return Model(Engine(bundle, threads=threads, provider=provider))


class Model:
    """An engine with the three things to do with it; any number of streams and threads may share one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def answer(self, file: str | Path, question: str, *, join: bool = False) -> Answer:
        """Watch ``file`` to its end and answer ``question`` about it.

        The answer rests on the last ``max_chunks`` chunks; its ``flags`` say so, and what else a reader needs.

        Args:
            file: a media file; with ``join`` a folder, whose files are one stream in the order of their names.
            question: in the words of the training questions.
            join: accept a folder.

        Raises:
            MirasolError: the file cannot be used, or the question is empty or too long.
        """
        return self.answers(file, [question], join=join)[0]

    def answers(self, file: str | Path, questions: Sequence[str], *, join: bool = False) -> list[Answer]:
        """Like :meth:`answer` for several questions; the file is decoded once."""
        if isinstance(questions, str):
            raise MirasolError(f"questions is the text {questions!r}: expected a list of texts; `answer` takes one")
        for question in questions:
            self.engine.check_question(question)
        if Path(file).is_dir() and not join:
            raise MirasolError(
                f"{Path(file)} is a folder: `mirasol predict` answers about each of its files; to take them as one "
                "stream, in the order of their names, add --join (join=True)"
            )
        source = open_source(file, self.engine.contract.clip)
        session = self.session(source.chunk_seconds)
        for chunk in source:
            session.push(chunk.video, chunk.samples)
        partial = _partial(source, session.seconds)
        answers = [session.ask(question) for question in questions]
        return [replace(answer, flags=(*answer.flags, *partial)) for answer in answers]

    def stream(self, source: str | Path, ask: str, every: float = 2.0, *, wait: bool = True) -> Iterator[Answer]:
        """Stream ``source`` and answer ``ask`` every ``every`` seconds and at the end; a camera has no end.

        Args:
            source: a media file, a folder of them, ``synthetic``, a camera device or an RTSP address.
            ask: the question.
            every: seconds of stream time between two answers.
            wait: play at the source's own speed; else as fast as possible.

        Raises:
            MirasolError: the source cannot be used, the question is empty or too long, or ``every`` is not above 0.
        """
        if not every > 0:
            raise MirasolError(f"every {every} s: expected a time above 0")
        self.engine.check_question(ask)
        chunks = open_stream(source, self.engine.contract.clip)
        return _answers(moments(self.session(chunks.chunk_seconds), chunks, ask, every, wait=wait))

    def session(self, chunk_seconds: float | None = None) -> Session:
        """An empty session: push chunks, ask at any time. ``chunk_seconds`` defaults to the bundle's."""
        return Session(self.engine, chunk_seconds)


def _partial(source: Source, seconds: float) -> tuple[Flag, ...]:
    """The remark about a file of which a whole chunk or more could not be used."""
    if not isinstance(source, FileSource) or source.stated - seconds < source.chunk_seconds:
        return ()
    why = f": {source.wrong}" if source.wrong else ": the rest holds nothing that can be decoded"
    return (Flag(PARTIAL, f"only {seconds:.3g} of {source.stated:.4g} s were used{why}"),)


def _answers(stream: Generator[Moment]) -> Iterator[Answer]:
    with contextlib.closing(stream):
        for moment in stream:
            if moment.answer is not None:
                yield moment.answer
