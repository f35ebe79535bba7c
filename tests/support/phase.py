"""A project's folder in which `mirasol stage pretrain` trains for seconds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
FINETUNE_ALONE = """\
stages:
  finetune:
    cmd: mirasol stage finetune
    deps: [build/audio_pretrain, build/shards, build/tokenizer]
    params: [model, phases, finetune, training.seed]
    outs: [build/finetune, build/reports/finetune.json]
"""  # a dvc.yaml


def phase_project(world: Path, folder: Path, steps: int = 4) -> Path:
    """``folder`` with params.yaml of ``steps`` small steps, and the shards and tokenizer of ``world``; returns it."""
    (folder / "build/tokenizer").mkdir(parents=True)
    shutil.copyfile(world / "tokenizer.json", folder / "build/tokenizer/tokenizer.json")
    shutil.copytree(world / "shards", folder / "build/shards")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    small = {"batch_size": 4, "val_clips": 4, "texts_per_clip": 2, "steps": steps, "warmup": 1}
    small |= {"checkpoint_every": 2, "vocabulary": 64, "threads": 1}
    for key, value in small.items():
        text = re.sub(rf"^  {key}: .*", f"  {key}: {value}", text, flags=re.MULTILINE)
    text = text.replace("logger: tensorboard", "logger: none").replace("accelerator: auto", "accelerator: cpu")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder
