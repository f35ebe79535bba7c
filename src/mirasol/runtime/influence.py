"""Which chunks an answer rests on: each is taken out of the text model's memory, and the answer is scored again.

The text graph gives no attention weights, and weights are no proof of use. What is measured here is an effect: how
much the log-odds of each token, log p - log(1 - p) in nats, fall when one chunk is gone. (Where a model is sure, log p
alone hardly moves.) Later chunks may carry on what an earlier one held (their latents have seen it, P 3.3), so that a
chunk's influence is what the text model read from its own features and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mirasol.runtime.backends import Array
from mirasol.runtime.contract import TEXT
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import greedy


def answer_tokens(engine: Engine, question: str, memory: Array, valid: Array) -> tuple[list[int], list[float]]:
    """The greedy answer's tokens without its end mark, and the log-odds of each.

    Args:
        memory: h of the remembered chunks [1, R*m, d].
        valid: which of it is there [1, R*m], at least one.
    """
    ids: list[int] = []
    scores: list[float] = []
    for token, logits in greedy(engine, question, memory, valid):
        if token != engine.contract.tokenizer.eos:
            ids.append(token)
            scores.append(_log_odds(logits, token))
    return ids, scores


def influences(
    engine: Engine, question: str, ids: list[int], scores: list[float], memory: Array, valid: Array
) -> Iterator[list[float] | None]:
    """For each of the R places in memory, oldest first: what each token of the answer loses without it, in nats.

    None where no chunk is, and where it is the only one: there is nothing to compare with.
    """
    prompt, per_chunk = engine.prompt(question), engine.contract.model.combined
    there = [bool(rows.any()) for rows in np.asarray(valid).reshape(-1, per_chunk)]
    for place, present in enumerate(there):
        if not present or sum(there) == 1:
            yield None
            continue
        without = np.array(valid)
        without[:, place * per_chunk : (place + 1) * per_chunk] = False
        logits, states = _prompt(engine, prompt, memory, without)
        losses = []
        for i, (token, score) in enumerate(zip(ids, scores, strict=True)):
            losses.append(score - _log_odds(logits, token))
            if i + 1 < len(ids):
                out, states = engine.text(token, memory, without, states)
                logits = np.asarray(out)[0]
        yield losses


def _prompt(engine: Engine, prompt: list[int], memory: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
    states = engine.initial(TEXT)
    for token in prompt:
        logits, states = engine.text(token, memory, valid, states)
    return np.asarray(logits)[0], states


def _log_odds(logits: Array, token: int) -> float:
    values = np.asarray(logits, np.float64)
    others = np.delete(values, token)
    top = others.max()
    return float(values[token] - top - np.log(np.exp(others - top).sum()))
