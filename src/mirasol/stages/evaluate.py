"""Stage `evaluate`: every question of a split answered by the finetuned model -> reports/eval.json."""

from __future__ import annotations

from mirasol.core.files import write_json
from mirasol.evaluation.evaluate import evaluate
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import CACHE, DATA, EVALUATE, FINETUNE, REPORTS, SHARDS, TOKENIZER


def main(params: Params) -> None:
    """Score whole clips, and the same muted, blanked, with another clip's sound and with their chunks shuffled."""
    spec, training = params.evaluate, params.training
    report = evaluate(
        FINETUNE,
        SHARDS,
        TOKENIZER,
        DATA,
        spec,
        EVALUATE,
        training.threads,
        CACHE,
        training.accelerator,
        training.max_damaged,
    )
    write_json(REPORTS / "eval.json", report)
