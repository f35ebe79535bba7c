"""Stage `shards`: data/ -> tars of clips in build/shards, counts in reports/shards.json."""

from __future__ import annotations

import sys

from mirasol.core.files import write_json
from mirasol.data.shards.build import build_shards
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import DATA, PARTS, REPORTS, SHARDS


def main(params: Params) -> None:
    """Cut every clip into chunks and store it for training."""
    report = build_shards(DATA, SHARDS, params.clip, params.shards, store=PARTS)
    write_json(REPORTS / "shards.json", report)
    split = params.evaluate.split
    if not report["splits"].get(split):  # said here, before hours of training: evaluate refuses it
        print(f"[shards] the split {split} (evaluate.split) has no clip: evaluate will refuse it", file=sys.stderr)
