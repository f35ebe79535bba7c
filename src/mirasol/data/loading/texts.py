"""The texts of a split as tokens: encoded once, checked against the text cache, kept in flat arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError, listing
from mirasol.data.manifest import Example
from mirasol.tokenizer import Tokenizer


@dataclass(frozen=True)
class Text:
    """One text of a clip: ``ids`` = bos, prompt, answer mark, answer, eos."""

    ids: NDArray[np.int32]
    answer: int  # index of its first token in ``ids``
    task: str
    example: str  # its id


def encode_texts(tokenizer: Tokenizer, examples: Iterable[Example], optional: Collection[str] = ()) -> list[Text]:
    """The training texts of ``examples``: each prompt with its first answer.

    Raises:
        MirasolError: a text of a task not in ``optional`` does not fit into the text cache of ``tokenizer``, its
            ``max_text`` tokens; all such examples are listed.
    """
    known: dict[tuple[str, str], tuple[NDArray[np.int32], int]] = {}  # questions repeat
    texts, long = [], []
    longest = 0
    for example in examples:
        pair = example.prompt, example.answers[0]
        if pair not in known:
            ids = np.array(tokenizer.text_ids(*pair), np.int32)
            known[pair] = ids, len(tokenizer.text_ids(example.prompt, None))
        ids, answer = known[pair]
        if len(ids) > tokenizer.max_text and example.task not in optional:
            longest = max(longest, len(ids))
            long.append(
                f"example {example.id!r} of {example.media}: {answer} tokens of prompt and "
                f"{len(ids) - answer} of answer, {len(ids)} in all"
            )
        texts.append(Text(ids, answer, example.task, example.id))
    if long:
        title = (
            f"{len(long)} text(s) are longer than the text cache of {tokenizer.max_text} tokens: set max_text of the "
            f"phase, or of the tokenizer where that is 0, to at least {longest}, or shorten them"
        )
        raise MirasolError(listing(title, long, 10))
    return texts


def stack_texts(
    rows: Sequence[Sequence[Text]], length: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[list[str]]]:
    """Tokens [B, Q, L] and answer mask [B, Q, L] of B rows of at most Q = ``width`` texts, and example ids B x Q."""
    tokens = np.zeros((len(rows), width, length), np.int64)
    mask = np.zeros((len(rows), width, length), bool)
    for b, row in enumerate(rows):
        for q, text in enumerate(row):
            tokens[b, q, : len(text.ids)] = text.ids
            mask[b, q, text.answer : len(text.ids)] = True
    return tokens, mask, [[t.example for t in row] + [""] * (width - len(row)) for row in rows]
