"""The schema of params.yaml: one frozen dataclass a section, each defined in the room it drives."""

from __future__ import annotations

from dataclasses import dataclass, field

from mirasol.data.spec import ClipSpec, ShardsSpec, TokenizerSpec
from mirasol.evaluation.config import EvaluateSpec
from mirasol.export.config import BenchmarkSpec, ExportSpec
from mirasol.model.config import ModelSpec
from mirasol.training.config import PhaseConfig, TrainingConfig


@dataclass(frozen=True)
class Params:
    """All of params.yaml. Every key must be stated there; a key that is not here is an error."""

    clip: ClipSpec = field(default_factory=ClipSpec)
    tokenizer: TokenizerSpec = field(default_factory=TokenizerSpec)
    shards: ShardsSpec = field(default_factory=ShardsSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pretrain: PhaseConfig = field(default_factory=PhaseConfig)
    audio_pretrain: PhaseConfig = field(default_factory=PhaseConfig)
    finetune: PhaseConfig = field(default_factory=PhaseConfig)
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    benchmark: BenchmarkSpec = field(default_factory=BenchmarkSpec)
