"""Settings of the evaluation. No torch here: ``params check`` reads it."""

from __future__ import annotations

from dataclasses import dataclass

from mirasol.core.fields import param


@dataclass(frozen=True)
class EvaluateSpec:
    """The `evaluate` section."""

    split: str = param("test", "split that is scored", choices=("val", "test"))
    batch_size: int = param(32, "clips per batch", ge=1)
    max_answer: int = param(8, "longest answer in tokens", ge=1)
    beam: int = param(1, "hypotheses at a time when an answer is generated; 1 is greedy", ge=1, le=64)
    resamples: int = param(2000, "bootstrap resamples of the interval, over groups", ge=100)
    seed: int = param(7, "seed of the bootstrap, of the swapped sound and of the order of shuffled chunks", ge=0)
    gallery: int = param(12, "clips shown in the report", ge=0, le=200)
