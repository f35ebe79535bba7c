"""Stage `pretrain`: captions (S 4) -> build/pretrain, figures in reports/pretrain.json."""

from __future__ import annotations

from mirasol.params.schema import Params
from mirasol.stages.phase import train


def main(params: Params) -> None:
    """Train from random weights, or go on where a killed run stopped."""
    train("pretrain", params, None)
