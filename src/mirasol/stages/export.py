"""Stage `export`: the finetuned model as a bundle of ONNX graphs in build/bundle -> reports/parity.json."""

from __future__ import annotations

from mirasol.core.files import write_json
from mirasol.export.bundle import export_bundle
from mirasol.export.parity import check_parity, require_parity
from mirasol.params.schema import Params
from mirasol.stages.paths import BUNDLE, FINETUNE, REPORTS, SHARDS, TOKENIZER
from mirasol.training.weights import load_model


def main(params: Params) -> None:
    """Export, then stream clips of the evaluated split through the bundle and compare with torch."""
    model, limit = load_model(FINETUNE), params.evaluate.max_answer
    scores = REPORTS / "eval.json"
    export_bundle(model, params.clip, TOKENIZER, BUNDLE, params.export, max_answer=limit, evaluation=scores)
    report = check_parity(model, BUNDLE, SHARDS, params.export, split=params.evaluate.split, max_answer=limit)
    write_json(REPORTS / "parity.json", report)
    require_parity(report)
