"""The model's answer about a clip, with its probability and its margin over the next best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mirasol.runtime.answer import softmax
from mirasol.runtime.backends import Array
from mirasol.runtime.contract import TEXT
from mirasol.runtime.engine import Engine
from mirasol.runtime.model import Model
from mirasol.runtime.sources.files import FileSource
from mirasol.serve.labels import Proposal


def propose(model: Model, file: Path, question: str, answers: Sequence[str] = ()) -> Proposal:
    """The model's answer about ``file``: the likeliest of ``answers`` if two or more are given, else any.

    Raises:
        MirasolError: the file cannot be used, or the question does not fit the model.
    """
    source = FileSource(file, model.engine.contract.clip)
    session = model.session(source.chunk_seconds)
    for chunk in source:
        session.push(chunk.video, chunk.samples)
    if len(answers) < 2:
        answer = session.ask(question)
        return Proposal(answer.text, answer.score, answer.margin, flags=tuple(flag.text for flag in answer.flags))
    memory, valid = session.memory
    scores = np.array([log_probability(model.engine, question, answer, memory, valid) for answer in answers])
    shares = softmax(scores)
    second, first = np.argsort(shares)[-2:]
    flags = tuple(flag.text for flag in session.flags(question))
    return Proposal(answers[first], float(shares[first]), float(shares[first] - shares[second]), flags=flags)


def log_probability(engine: Engine, question: str, answer: str, memory: Array, valid: Array) -> float:
    """log p of ``answer`` with its end mark, in nats; the answer is cut where the text cache ends."""
    prompt = engine.prompt(question)
    target = engine.tokenizer.text_ids(question, answer)[len(prompt) :]
    target = target[: engine.contract.model.max_text - len(prompt)]
    total = 0.0
    with engine.lent(TEXT) as text:
        text.set("memory", memory)
        text.set("memory_valid", valid)
        for place, token in enumerate([*prompt, *target[:-1]]):
            text.set("token", np.array([token], np.int64))
            text.run()
            text.swap()
            if (step := place + 1 - len(prompt)) >= 0:
                total += float(np.log(softmax(text.get("logits")[0])[target[step]] + 1e-30))
    return total
