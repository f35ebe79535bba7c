"""Which parts of the model a phase trains (S 4)."""

from __future__ import annotations

from collections.abc import Collection

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups
from mirasol.training.config import PhaseConfig

MODALITIES = ("video", "audio")
BRANCHES = {"video": ("video_tubes.", "reconstruction."), "audio": ("audio.", "audio_reconstruction.")}
# A part that only serves a loss has nothing to learn without it.
SERVES = {"text.": "text_weight", "reconstruction.": "video_weight", "audio_reconstruction.": "audio_weight"}


def freeze(model: Mirasol, config: PhaseConfig, modalities: Collection[str] = MODALITIES) -> None:
    """Set ``requires_grad`` of the parameters that the phase trains, and of no other.

    "The text backbone is frozen during pretraining", in the audio phase all "other than the audio weights", and
    "during finetuning all parameters are unfrozen" (S 4): the defaults of `trained`. A part that serves a modality or
    a loss that is not there learns nothing.

    Raises:
        ValueError: the model lacks a group that `trained` names.
    """
    groups = parameter_groups(model)
    trained = list(groups) if config.trained == "all" else config.trained.split()
    if unknown := set(trained) - set(groups):
        raise ValueError(f"parameter groups {sorted(unknown)} are not in the model: it has {sorted(groups)}")
    learning = {name for group in trained for name in groups[group]}
    idle = tuple(part for part, weight in SERVES.items() if not getattr(config, weight))
    idle += tuple(part for kind in MODALITIES if kind not in modalities for part in BRANCHES[kind])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning and not name.startswith(idle))
