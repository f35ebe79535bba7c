"""Stage `export`: the finetuned model as a bundle of ONNX graphs in build/bundle -> reports/parity.json."""

from __future__ import annotations

from mirasol.core.files import write_json
from mirasol.export.bundle import export_bundle
from mirasol.export.parity import check_parity, require_parity
from mirasol.export.quantize import precisions_of
from mirasol.export.quantize_check import export_precisions
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUNDLE, FINETUNE, REPORTS, SHARDS, TOKENIZER
from mirasol.tasks.scoring.normalise import exact_match
from mirasol.training.weights import load_model


def main(params: Params) -> None:
    """Export, stream clips of the evaluated split through the bundle, compare with torch, then lower the precision."""
    precisions_of(params.export)  # a name that is wrong is said at once
    model, limit, split = load_model(FINETUNE), params.evaluate.max_answer, params.evaluate.split
    scores = REPORTS / "eval.json"
    export_bundle(model, params.clip, TOKENIZER, BUNDLE, params.export, max_answer=limit, evaluation=scores)
    report = check_parity(model, BUNDLE, SHARDS, params.export, split=split, max_answer=limit)
    write_json(REPORTS / "parity.json", report)
    require_parity(report)
    del model  # a large one fills half of the memory that lowering its graphs takes
    report["precisions"] = export_precisions(
        BUNDLE, SHARDS, params.export, split=split, correct=exact_match, evaluation=scores
    )
    write_json(REPORTS / "parity.json", report)
