"""Stage `audio_pretrain`: names of sounds (S 4) -> build/audio_pretrain, figures in reports/audio_pretrain.json."""

from __future__ import annotations

from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import PRETRAIN
from mirasol.pipeline.stages import train


def main(params: Params) -> None:
    """Train from the weights of the phase before, or go on where a killed run stopped."""
    train("audio_pretrain", params, PRETRAIN)
