"""Shards of a tiny data set, made once for all tests that only read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.media import TINY_CLIP, write_data

from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec

CLIPS = 16


@dataclass(frozen=True)
class TinyShards:
    """Eight clips of train, four of val and four of test in tars of three, and what the build reported."""

    data: Path
    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> TinyShards:
    root = tmp_path_factory.mktemp("tiny")
    data = write_data(root / "data", CLIPS)
    report = build_shards(data, root / "shards", TINY_CLIP, ShardsSpec(clips_per_shard=3, workers=1))
    return TinyShards(data, root / "shards", report)
