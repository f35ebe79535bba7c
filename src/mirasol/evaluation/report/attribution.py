"""Where the model looked for the answers of the gallery: what `mirasol explain` shows, small enough for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.decoded_cache import Decoded
from mirasol.evaluation.attribution.draw import over_frames, over_sound
from mirasol.evaluation.attribution.explain_file import Explained, look
from mirasol.evaluation.pictures import SPECTROGRAM_COLUMNS, glow, in_strip
from mirasol.evaluation.report.project import Looked
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.tokenizer import Tokenizer
from mirasol.training.weights import WEIGHTS, load_model

LARGEST = 64 << 20  # bytes of weights; looking back through a larger model would hold up the report
CELLS = 12  # heat is kept at this many points along a side of a frame


def looks(
    folder: Path, shards: ShardDataset, chosen: Sequence[Mapping[str, Any]], max_answer: int
) -> tuple[dict[str, Looked], str]:
    """What each answer of ``chosen`` looked at, by example id, and a note about those that are not there.

    An answer is left out where the weights in ``folder`` now give another one: its picture would explain that one.
    """
    weights = folder / "build" / "finetune"
    try:
        if (size := (weights / WEIGHTS).stat().st_size) > LARGEST:
            return {}, f"{size >> 20:,} MiB of weights are too many to look back through here"
        model = load_model(weights).eval()
        words = Tokenizer.load(folder / "build" / "tokenizer" / "tokenizer.json")
    except (MirasolError, OSError):
        return {}, "the weights are not here"
    found: dict[str, Looked] = {}
    with torch_threads(1):  # the same bytes whatever the machine's cores
        for prediction in chosen:
            try:
                clip = shards.arrays(shards.keys.index(prediction["clip"]))
                explained = look(model, words, clip, shards.spec, prediction["prompt"], max_answer)
            except (MirasolError, RuntimeError, ValueError) as error:
                return {}, f"the weights do not fit these clips: {error}"
            if explained.answer == prediction["predicted"].get("unchanged"):
                found[prediction["example_id"]] = looked(explained, clip, model)
    lost = len(chosen) - len(found)
    return found, f"the weights here give another answer to {lost} of {len(chosen)}" if lost else ""


def looked(explained: Explained, clip: Decoded, model: Mirasol) -> Looked:
    """The mean over the tokens of an answer, with the heat of the whole clip."""
    features = explained.features.astype(float).mean(0)  # [T, n]
    seen, heard = features[:, : explained.video_tokens], features[:, explained.video_tokens :]
    peak = max(float(features.max()), 1e-12)  # one scale for picture and sound
    size = model.config.size
    points = (np.arange(CELLS) * size + size // 2) // CELLS if size > CELLS else np.arange(size)
    frames = np.concatenate([over_frames(shares, model)[:, points][:, :, points] for shares in seen])
    sound = np.concatenate([over_sound(shares, model) for shares in heard])
    return Looked(
        pieces=tuple(explained.pieces),
        attention=_floats(explained.chunks.mean(0)),
        counted=_floats(features.sum(1)),
        picture=float(seen.sum()),
        frames=glow(np.concatenate(list(frames[in_strip(len(frames))]), 1), float(seen.max()) / peak),
        sound=glow(sound[:: -(-len(sound) // SPECTROGRAM_COLUMNS)].T[::-1], float(heard.max()) / peak),
    )


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
