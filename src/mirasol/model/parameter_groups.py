"""The parameters of a model by the part that a training phase trains or freezes (S 4)."""

from __future__ import annotations

from mirasol.model.mirasol import Mirasol

GROUPS = {"video_tubes": "tubes", "audio_reconstruction": "reconstruction"}  # of the modules with another name


def parameter_groups(model: Mirasol) -> dict[str, list[str]]:
    """The name of every parameter, once, by group.

    A part without parameters, such as the combiner `concat` or the latent model `none`, has an empty list.
    """
    groups: dict[str, list[str]] = {
        GROUPS.get(part, part): [] for part, _ in model.named_children() if part not in ("text", "log_mel")
    }
    for name, _ in model.named_parameters():
        part = name.split(".", 1)[0]
        if part == "text":
            crossing = ".cross_attention." in name or name.endswith("memory_features")
            part = "cross_attention" if crossing else "text_backbone"
        groups.setdefault(GROUPS.get(part, part), []).append(name)
    return groups
