"""Tiny models and batches that every test of the model shares."""

from __future__ import annotations

import dataclasses

import torch

from mirasol.model.batch import Batch
from mirasol.model.config import COMBINERS, POOLED_COMBINERS, ModelConfig, ModelSpec, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config

TINY = Sizes(layers=2, width=24, hidden=48, heads=2, head=8)


# Every combiner with every start that it may have.
VARIANTS = [
    (combiner, queries)
    for combiner in COMBINERS
    for queries in ("last", "pooled")
    if queries == "last" or combiner in POOLED_COMBINERS
]


def tiny_config(**changes: object) -> ModelConfig:
    """A config of the demo's structure with 24 channels; ``changes`` are fields of :class:`ModelConfig`.

    The queries are pooled, where the combiner can have them, unless ``changes`` says otherwise.
    """
    demo = build_config(ModelSpec(), size=16, frames_per_chunk=4, mels=8, audio_columns=8, vocabulary=19, max_text=12)
    tiny = {
        "audio_patch": (4, 8),
        "patch": 8,
        "vit": TINY,
        "combiner_sizes": TINY,
        "latent_sizes": TINY,
        "reconstruction_sizes": TINY,
        "text": TINY,
        "ttm_sizes": TINY,
        "ttm_memory": 5,
        "ttm_read": 6,
        "ttm_encoder": changes.get("combiner") == "ttm",
        "reconstruction_size": 4,
        "reconstruction_tube": (2, 2, 2),
        "num_queries": 3,
        "feature_mask": 0.5,
        "queries": "pooled" if changes.get("combiner", "transformer") in POOLED_COMBINERS else "last",
    }
    return dataclasses.replace(demo, **{**tiny, **changes})


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Mirasol:
    """A model in eval mode whose weights are large enough that every path matters."""
    torch.manual_seed(seed)
    model = Mirasol(tiny_config(**changes)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_batch(
    config: ModelConfig, clips: int = 2, chunks: int = 4, texts: int = 2, seed: int = 0, dtype=torch.float32
) -> Batch:
    """Noise of the right shapes; everything present, answers of two tokens at the end of each text."""
    g = torch.Generator().manual_seed(seed)
    length = min(8, config.max_text)
    mask = torch.zeros(clips, texts, length, dtype=torch.bool)
    mask[:, :, -2:] = True
    side, mels = config.size, config.mels
    return Batch(
        video=torch.randint(
            16, 236, (clips, chunks, config.frames_per_chunk, side * 3 // 2, side), generator=g, dtype=torch.uint8
        ),
        audio=torch.randn(clips, chunks, config.audio_columns, mels, generator=g).to(dtype),
        video_present=torch.ones(clips, chunks, dtype=torch.bool),
        audio_present=torch.ones(clips, chunks, dtype=torch.bool),
        tokens=torch.randint(5, config.vocabulary, (clips, texts, length), generator=g),
        answer_mask=mask,
        text_weight=torch.ones(clips, texts),
    )


# Which modality each of four chunks has, for two clips: rows of (video, audio) flags.
PRESENCE = {
    "both": (((1, 1), (1, 1), (1, 1), (1, 1)),) * 2,
    "no audio": (((1, 0), (1, 0), (1, 0), (1, 0)), ((1, 1), (1, 1), (1, 1), (1, 1))),
    "no video": (((0, 1), (0, 1), (0, 1), (0, 1)), ((1, 1), (1, 0), (0, 1), (1, 1))),
    "gaps": (((0, 0), (1, 1), (0, 0), (1, 0)), ((1, 1), (0, 1), (1, 1), (0, 0))),
    "nothing": (((0, 0), (0, 0), (0, 0), (0, 0)), ((1, 1), (1, 1), (1, 1), (1, 1))),
}


def with_presence(batch: Batch, name: str) -> Batch:
    """The batch with a pattern of :data:`PRESENCE`, repeated or cut to its number of chunks."""
    flags = torch.tensor(PRESENCE[name], dtype=torch.bool)
    chunks = batch.video.shape[1]
    flags = flags.repeat(1, -(-chunks // flags.shape[1]), 1)[:, :chunks]
    return dataclasses.replace(batch, video_present=flags[:, :, 0], audio_present=flags[:, :, 1])


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of ``b``."""
    return float((a - b).abs().max() / b.abs().max())


def golden_case(combiner: str) -> dict[str, torch.Tensor]:
    """Outputs of a model whose weights and inputs come from formulas, so that no random generator matters."""
    model = tiny_model(combiner=combiner)
    batch = with_presence(random_batch(model.config), "gaps")
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + k)
            parameter.copy_((0.2 * wave).view_as(parameter))
        steps = torch.arange(batch.video.numel())
        batch.video.copy_((16 + steps * 7919 % 220).view_as(batch.video))
        batch.audio.copy_(torch.cos(torch.arange(batch.audio.numel(), dtype=torch.float64)).view_as(batch.audio))
        batch.tokens.copy_(5 + torch.arange(batch.tokens.numel()).view_as(batch.tokens) % 14)
        encoded = model.encode(batch)
        losses = model(batch)
        return {
            "x": encoded.x,
            "h": encoded.h,
            "logits": model.logits(batch.tokens, encoded.h, encoded.present),
            **{name: losses[name] for name in ("text", "latent", "video")},
        }
