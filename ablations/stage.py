"""Stage `cell` of ablations/pipeline.yaml: a model trained from scratch and marked -> build/cell, reports/cell.json."""

from __future__ import annotations

from pathlib import Path

from ablations.cell import run_cell
from ablations.tables import read_switches
from mirasol.core.files import write_json
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import BUILD, REPORTS, RUNS, SHARDS, TOKENIZER
from mirasol.pipeline.stages import model_config


def main(params: Params) -> None:
    """The phases that cell.yaml asks for, by params.yaml."""
    switches = read_switches(Path("cell.yaml"))
    names = ("pretrain", "finetune") if switches["pretrain"] else ("finetune",)
    phases = [(name, getattr(params, name)) for name in names]
    report = run_cell(
        phases, params.training, params.clip, model_config(params), params.evaluate, SHARDS, TOKENIZER,
        BUILD / "cell", RUNS / "cell", permute=switches["permute"],
    )  # fmt: skip
    write_json(REPORTS / "cell.json", report)
