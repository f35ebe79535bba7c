"""The tasks that each training phase learns from and the parts that it freezes (S 4)."""

from __future__ import annotations

from dataclasses import dataclass

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups


@dataclass(frozen=True)
class Phase:
    """A phase of training."""

    tasks: tuple[str, ...]  # of its examples; captions may accompany them by weight
    trained: tuple[str, ...] | None  # groups of `parameter_groups` that learn; None: all
    required: bool  # False: without examples of its tasks the weights stay unchanged


PHASES: dict[str, Phase] = {
    # "The text backbone is frozen during pretraining while the other components including the cross attention
    # weights are unfrozen" (S 4, model pretraining). Audio has its own phase next, but is not frozen here:
    # where web video has sound, it is used.
    "pretrain": Phase(
        tasks=("caption",),
        trained=("audio", "vit", "tubes", "combiner", "latent", "reconstruction", "cross_attention"),
        required=False,
    ),
    # "we freeze the weights of the model, other than the audio weights" (S 4, video-audio)
    "audio_pretrain": Phase(tasks=("audio_class",), trained=("audio",), required=False),
    # "During finetuning all parameters are unfrozen" (S 4)
    "finetune": Phase(tasks=("qa",), trained=None, required=True),
}


def find_phase(name: str) -> Phase:
    """The phase called ``name``; raises ``ValueError`` for an unknown one."""
    if name not in PHASES:
        raise ValueError(f"training phase {name!r}: expected one of {', '.join(PHASES)}")
    return PHASES[name]


def freeze(model: Mirasol, phase: Phase) -> None:
    """Set ``requires_grad`` of the parameters that the phase trains, and of no other.

    Raises:
        ValueError: the model lacks a group.
    """
    groups = parameter_groups(model)
    trained = tuple(groups) if phase.trained is None else phase.trained
    if unknown := set(trained) - set(groups):
        raise ValueError(f"parameter groups {sorted(unknown)} are not in the model: it has {sorted(groups)}")
    learning = {name for group in trained for name in groups[group]}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
