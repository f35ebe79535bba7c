"""Stage `finetune`: questions and answers (S 4) -> build/finetune, figures in reports/finetune.json."""

from __future__ import annotations

from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import AUDIO_PRETRAIN
from mirasol.pipeline.stages import train


def main(params: Params) -> None:
    """Train from the weights of the phase before, or go on where a killed run stopped."""
    train("finetune", params, AUDIO_PRETRAIN)
