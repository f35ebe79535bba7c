"""Stage `shards`: data/ -> tars of clips in build/shards, counts in reports/shards.json."""

from __future__ import annotations

from mirasol.core.files import write_json
from mirasol.data.shards import build_shards
from mirasol.params.schema import Params
from mirasol.stages.paths import DATA, REPORTS, SHARDS


def main(params: Params) -> None:
    """Cut every clip into chunks and store it for training."""
    write_json(REPORTS / "shards.json", build_shards(DATA, SHARDS, params.clip, params.shards))
