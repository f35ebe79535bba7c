"""Which keys the queries of a chunk see."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Visible(NamedTuple):
    """Visible keys of each chunk, bool [B, T, n] each."""

    own: Tensor  # to the queries of their own chunk
    later: Tensor  # to the queries of later chunks
