"""Differences that parity refuses."""

from __future__ import annotations

import pytest

from mirasol.core.errors import MirasolError
from mirasol.export.parity import require_parity

GOOD = {
    "max_relative": 1e-6,
    "x": 1e-6,
    "h": 1e-7,
    "logits": 1e-7,
    "tolerance": 1e-5,
    "answers": 10,
    "answers_equal": 10,
    "different": [],
}


def test_equal_within_the_tolerance_passes() -> None:
    require_parity(GOOD)


@pytest.mark.parametrize("worst", [2e-5, float("inf"), float("nan")])
def test_over_the_tolerance_is_refused(worst: float) -> None:
    with pytest.raises(MirasolError, match=r"differ from torch by .*export\.tolerance allows 1\.0e-05"):
        require_parity(GOOD | {"max_relative": worst})


def test_another_answer_is_refused_and_shown() -> None:
    with pytest.raises(MirasolError, match="1 of 10 answers differ from torch's, the first: 'what': 'a', torch 'b'"):
        require_parity(GOOD | {"answers_equal": 9, "different": ["'what': 'a', torch 'b'"]})
