"""Where the model looked for the answers of the gallery, as `mirasol explain` computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.view import view_of
from mirasol.evaluation.attribution.attribute import Attribution, attribute
from mirasol.model.threads import torch_threads
from mirasol.tokenizer import Tokenizer
from mirasol.training.weights import WEIGHTS, load_model

LARGEST = 64 << 20  # bytes of weights; a larger model would take too long


def looks(
    folder: Path, shards: ShardDataset, chosen: Sequence[Mapping[str, Any]], max_answer: int
) -> tuple[dict[str, Attribution], str]:
    """The attribution of each answer of ``chosen``, by example id, and a note about missing ones.

    An answer is left out if the weights in ``folder`` now give another one: the picture would explain that one.
    """
    weights = folder / "build" / "finetune"
    try:
        if (size := (weights / WEIGHTS).stat().st_size) > LARGEST:
            return {}, f"{size >> 20:,} MiB of weights are too many to look back through here"
        model = load_model(weights).eval()
        shards = ShardDataset(shards.folder, shards.split, view=view_of(model.config))
        words = Tokenizer.load(folder / "build" / "tokenizer" / "tokenizer.json")
    except (MirasolError, OSError):
        return {}, "the weights are not here"
    found: dict[str, Attribution] = {}
    with torch_threads(1):  # the same bytes with any number of cores
        for prediction in chosen:
            try:
                clip = shards.arrays(shards.keys.index(prediction["clip"]))
                one = attribute(model, words, clip, shards.spec, prediction["prompt"], max_answer)
            except (MirasolError, RuntimeError, ValueError) as error:
                return {}, f"the weights do not fit these clips: {error}"
            if one.answer == prediction["predicted"].get("unchanged"):
                found[prediction["example_id"]] = one
    lost = len(chosen) - len(found)
    return found, f"the weights here give another answer to {lost} of {len(chosen)}" if lost else ""
