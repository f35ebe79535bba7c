"""One small world for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.training import small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("world"))
