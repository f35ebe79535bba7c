"""Paths of the stages, relative to the project's folder (the one with params.yaml)."""

from __future__ import annotations

from pathlib import Path

DATA = Path("data")  # raw, tracked by data.dvc
BUILD = Path("build")  # outputs of the stages, tracked by dvc.lock
RUNS = Path("runs")  # scratch: checkpoints, logs, errors
CACHE = RUNS / "cache"  # decoded clips and copies of tars, shared with the training phases
PARTS = RUNS / "shards" / "parts"  # encoded clips, kept for later runs
REPORTS = BUILD / "reports"  # figures of the stages, cached with their other outputs
PUBLISHED = Path("reports")  # copies of them, in git
LATENCY = RUNS / "latency.json"  # times, which no two runs share

PARAMS = BUILD / "params.json"
TOKENIZER = BUILD / "tokenizer" / "tokenizer.json"
SHARDS = BUILD / "shards"
PRETRAIN = BUILD / "pretrain"
AUDIO_PRETRAIN = BUILD / "audio_pretrain"
FINETUNE = BUILD / "finetune"
EVALUATE = BUILD / "evaluate"
BUNDLE = BUILD / "bundle"
REPORT = BUILD / "report"
