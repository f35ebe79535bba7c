"""`mirasol explain`: where the model looked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mirasol.cli.console import table
from mirasol.evaluation.attribution.explain_file import explain
from mirasol.evaluation.evaluate import Evaluator
from mirasol.pipeline.params.load import load_params
from mirasol.pipeline.paths import SHARDS, TOKENIZER


def show(clip: str, question: str, weights: Path, out: Path) -> None:
    """Print the answer and each token's shares of the chunks, and write the picture."""
    params = load_params()
    training = dataclasses.replace(params.training, accelerator="cpu")
    evaluator = Evaluator(weights, SHARDS, TOKENIZER, params.evaluate, training)
    explained = explain(evaluator, clip, question, params.clip, out)
    print(explained.answer)
    head = ("token", *(f"chunk {t}" for t in range(explained.chunks.shape[1])), "picture", "sound")
    rows: list[tuple[str, ...]] = [head]
    for piece, chunks, picture in zip(explained.pieces, explained.chunks, explained.picture, strict=True):
        seen, heard = (f"{picture:.0%}", f"{1 - picture:.0%}") if chunks.sum() > 0 else ("–", "–")
        rows.append((piece, *(f"{share:.0%}" for share in chunks), seen, heard))
    table(rows, right=tuple(range(1, len(rows[0]))))
    print(out)
