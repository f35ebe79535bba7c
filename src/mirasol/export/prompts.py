"""The prompts of training, for the contract of a bundle."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.shards.format import DamagedClip
from mirasol.runtime.contract import MOST_PROMPTS
from mirasol.tokenizer import normalise

MOST_CLIPS = 20_000  # clips whose texts are read, spread evenly over the training split
MOST_CHARACTERS = 500  # of a prompt; longer ones are left out


def learnt_prompts(shards: str | Path, split: str = "train") -> tuple[str, ...] | None:
    """The normalised prompts of all tasks in ``split``: the most frequent first, equal ones by their text.

    At most ``MOST_PROMPTS``; equal shards give equal prompts. ``None`` if the shards hold no clip of the split.
    """
    try:
        dataset = ShardDataset(shards, split, any_size=True)
    except MirasolError:
        return None
    counts: Counter[str] = Counter()
    step = max(1, -(-len(dataset) // MOST_CLIPS))
    for number in range(0, len(dataset), step):
        with contextlib.suppress(DamagedClip):
            counts.update(normalise(example["prompt"]) for example in dataset.meta(number)["examples"])
    dataset.close()
    kept = [prompt for prompt in counts if 0 < len(prompt) <= MOST_CHARACTERS]
    return tuple(sorted(kept, key=lambda prompt: (-counts[prompt], prompt))[:MOST_PROMPTS])
