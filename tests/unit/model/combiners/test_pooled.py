"""The pooled start: each cell of the frame is the mean of its own tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mirasol.model.combiners.pooled import pooling


def lattice(side: int) -> Tensor:
    """Centres (row, column) of side x side tokens."""
    centres = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


@pytest.mark.parametrize("side", [6, 9])
def test_no_token_is_in_two_cells(side: int) -> None:
    video = pooling(lattice(side), 4, 9)[:, :-4]
    assert (video > 0).sum(dim=0).tolist() == [1] * side * side
    assert (video > 0).sum(dim=1).tolist() == [side * side // 9] * 9


def test_a_token_on_an_edge_counts_for_both_cells() -> None:
    middle = (pooling(lattice(3), 1, 4)[:, :-1] > 0).sum(dim=0).view(3, 3)
    assert middle.tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_a_cell_without_tokens_takes_the_mean_of_all() -> None:
    weights = pooling(torch.tensor([[0.1, 0.1], [0.2, 0.2]]), 1, 4)
    torch.testing.assert_close(weights[:, :-1], torch.full((4, 2), 0.5))


def test_the_weights_of_video_and_of_audio_sum_to_one_each() -> None:
    weights = pooling(lattice(6), 4, 9)
    torch.testing.assert_close(weights[:, :-4].sum(dim=1), torch.ones(9))
    torch.testing.assert_close(weights[:, -4:].sum(dim=1), torch.ones(9))
