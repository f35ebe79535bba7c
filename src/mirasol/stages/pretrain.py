"""Stage `pretrain`: captions (S 4) -> build/pretrain, figures in reports/pretrain.json."""

from __future__ import annotations

from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.stages import train
from mirasol.training.weights import find_pinned


def main(params: Params) -> None:
    """Train from `training.init` or random weights, or go on where a killed run stopped."""
    train("pretrain", params, find_pinned(params.training.init))
