"""Stage `tokenizer`: the texts of the training split -> build/tokenizer/tokenizer.json."""

from __future__ import annotations

from mirasol.data.manifest import read_manifest
from mirasol.pipeline.params.schema import Params
from mirasol.pipeline.paths import DATA, TOKENIZER
from mirasol.tokenizer import train_tokenizer


def main(params: Params) -> None:
    """Train the vocabulary on prompts and answers of the training split, and on nothing of the others."""
    examples = [e for e in read_manifest(DATA / "manifest.jsonl") if e.split == "train"]
    facts = train_tokenizer((text for e in examples for text in (e.prompt, *e.answers)), params.tokenizer, TOKENIZER)
    print(f"[tokenizer] {facts['vocabulary']} pieces from {facts['texts']:,} texts", flush=True)
