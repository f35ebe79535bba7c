"""The structure keeps to its bounds: short signatures, plain words, no circles of imports (tests/tools/house.py)."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOUSE: dict[str, Any] = runpy.run_path(str(ROOT / "tests" / "tools" / "house.py"))


def places(name: str) -> list[Any]:
    """The places behind a figure."""
    find: Callable[[Path], list[Any]] = HOUSE[name]
    return find(ROOT)


@pytest.mark.parametrize("name", ("jargon", "circles"))
def test_there_is_none(name: str) -> None:
    assert places(name) == []


def test_few_functions_take_eight_parameters() -> None:
    found = places("functions_8_parameters")
    assert len(found) <= HOUSE["BOUNDS"]["functions_8_parameters"], "\n".join(found)


def test_files_are_short() -> None:
    found = places("long_files")
    assert len(found) <= HOUSE["BOUNDS"]["long_files"], "\n".join(found)


@pytest.mark.parametrize("name", ("wh_words_per_1000", "shard_reader_imports", "readme_words", "docs_words"))
def test_figure_keeps_its_bound(name: str) -> None:
    assert 0 <= HOUSE[name](ROOT) <= HOUSE["BOUNDS"][name]


def test_no_package_outgrows_the_others() -> None:
    assert max(HOUSE["shares"](ROOT).values()) <= HOUSE["BOUNDS"]["biggest_share"]
