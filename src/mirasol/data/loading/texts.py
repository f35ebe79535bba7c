"""The texts of a split as tokens: encoded once, checked against the text cache, read from flat arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError, listing
from mirasol.data.loading.facts import Strings, Table, examples_of

if TYPE_CHECKING:
    from mirasol.data.loading.dataset import ShardDataset

LISTED = 10  # texts in an error


@dataclass(frozen=True)
class Text:
    """One text of a clip: ``ids`` = bos, prompt, answer mark, answer, eos."""

    ids: NDArray[np.int32]
    answer: int  # index of its first token in ``ids``
    task: str
    example: str  # its id


class ClipTexts(Sequence[list[Text]]):
    """The texts of each clip, made when they are asked for; all clips together keep two numbers for each text.

    Args:
        shard_set: the split.
        tokens: of its texts (:meth:`ShardDataset.tokens`).
        rows: numbers of examples: those of clip i from ``bounds[i]`` up to ``bounds[i + 1]``.
    """

    def __init__(
        self, shard_set: ShardDataset, tokens: Table, rows: NDArray[np.int64], bounds: NDArray[np.int64]
    ) -> None:
        self.facts, self.tokens, self.rows, self.bounds = shard_set.facts, tokens, rows, bounds
        self.ids = Strings(self.facts, "ids")

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> list[Text]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Text]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return [self._text(int(row)) for row in self.rows[self.bounds[number] : self.bounds[number + 1]]]

    def lengths(self) -> NDArray[np.int64]:
        """The tokens of each text in ``rows``."""
        sizes: NDArray[np.int64] = np.diff(self.tokens.arrays["bounds"])
        return sizes[self.facts.arrays["pairs"][self.rows]]

    def having(self, task: str) -> NDArray[np.int64]:
        """The clips with a text of ``task``."""
        rows, _ = examples_of(self.facts, (task,))
        found = np.flatnonzero(np.isin(self.rows, rows))
        clips: NDArray[np.int64] = np.unique(np.searchsorted(self.bounds, found, side="right") - 1)
        return clips

    def _text(self, row: int) -> Text:
        facts, tokens = self.facts.arrays, self.tokens.arrays
        pair = int(facts["pairs"][row])
        low, high = tokens["bounds"][pair : pair + 2]
        task = self.facts.notes["tasks"][int(facts["tasks"][row])]
        return Text(np.array(tokens["tokens"][low:high]), int(tokens["answers"][pair]), task, self.ids[row])


def too_long(shard_set: ShardDataset, texts: ClipTexts, limit: int, optional: Collection[str]) -> NDArray[np.bool_]:
    """Which texts have more than ``limit`` tokens.

    Raises:
        MirasolError: one of a task not in ``optional`` has; the first such examples are listed.
    """
    lengths = texts.lengths()
    long: NDArray[np.bool_] = lengths > limit
    if not long.any():
        return long
    names = shard_set.facts.notes["tasks"]
    allowed = np.array([name in optional for name in names])[shard_set.facts.arrays["tasks"][texts.rows]]
    refused = np.flatnonzero(long & ~allowed)
    if len(refused):
        clips = np.searchsorted(shard_set.facts.arrays["bounds"], texts.rows[refused], side="right") - 1
        lines = [f"clip {int(number)}" for number in clips]
        for place, (index, number) in enumerate(zip(refused[:LISTED], clips, strict=False)):
            text, media = texts._text(int(texts.rows[index])), shard_set.meta(int(number))["media"]
            lines[place] = (
                f"example {text.example!r} of {media}: {text.answer} tokens of prompt and "
                f"{len(text.ids) - text.answer} of answer, {len(text.ids)} in all"
            )
        title = (
            f"{len(refused)} text(s) are longer than the text cache of {limit} tokens: set max_text of the "
            f"phase, or of the tokenizer where that is 0, to at least {lengths[refused].max()}, or shorten them"
        )
        raise MirasolError(listing(title, lines, LISTED))
    return long


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
