"""Embeddings of another vocabulary: a row moves with its piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """Which row of the file's embedding each of our pieces takes."""

    rows: dict[int, int]  # our id -> the file's id
    size: int  # of the file's vocabulary

    @classmethod
    def match(cls, ours: list[str], theirs: list[str]) -> Vocabulary:
        """Pieces of the same text; the first of them where a text comes twice."""
        where: dict[str, int] = {}
        for index, piece in enumerate(theirs):
            where.setdefault(piece, index)
        return cls({i: where[piece] for i, piece in enumerate(ours) if piece in where}, len(theirs))


def move_rows(new: Tensor, old: Tensor, rows: dict[int, int]) -> Tensor:
    """``new`` [V, w] with the ``rows`` of ``old``; the others keep their direction and get the kept ones' mean length.

    The head is tied to the embedding: rows much longer than the others would be every answer.
    """
    table = new.clone()
    if not rows:
        return table
    ours, theirs = torch.tensor(list(rows)), torch.tensor(list(rows.values()))
    kept = old[theirs]
    table *= kept.norm(dim=1).mean() / table.norm(dim=1, keepdim=True)
    table[ours] = kept
    return table
