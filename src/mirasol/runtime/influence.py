"""Influence of each chunk on an answer: the answer is scored again without it.

The text graph returns no attention weights, and weights do not prove use. This measures an effect: the drop in the
log-odds of each token, log p - log(1 - p) in nats, when one chunk is masked out (log p hardly moves where a model is
sure). Later latents have seen earlier chunks (P 3.3), so the influence covers only the masked chunk's own features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mirasol.runtime.backends import Array
from mirasol.runtime.contract import TEXT
from mirasol.runtime.engine import Engine
from mirasol.runtime.session import greedy


def answer_tokens(engine: Engine, question: str, memory: Array, valid: Array) -> tuple[list[int], list[float]]:
    """Tokens of the greedy answer without its end mark, and their log-odds.

    Args:
        memory: h of the remembered chunks [1, R*m, d].
        valid: mask [1, R*m], True for at least one row.
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
    """For each of the R chunks in memory, oldest first: the loss of each answer token without it, in nats.

    None for an empty place, and for the only chunk, which leaves no memory to compare with.
    """
    prompt, per_chunk = engine.prompt(question), engine.contract.model.combined
    filled = [bool(rows.any()) for rows in np.asarray(valid).reshape(-1, per_chunk)]
    for place, present in enumerate(filled):
        if not present or sum(filled) == 1:
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
