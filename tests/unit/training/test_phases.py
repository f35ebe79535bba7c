"""Each phase trains the paper's parts and leaves the others equal to the bit."""

from __future__ import annotations

import pytest
import torch
from support.model import random_batch, tiny_model

from mirasol.model.parameter_groups import parameter_groups
from mirasol.training.config import PhaseConfig
from mirasol.training.optim import build_optimizer
from mirasol.training.phases import freeze

FROZEN = {
    "pretrain": {"text_backbone"},
    "audio_pretrain": {"tubes", "vit", "combiner", "latent", "reconstruction", "text_backbone", "cross_attention"},
    "finetune": set(),
}


# S 4: the text backbone is frozen in pretraining, all but the audio weights in the audio phase
TRAINED = {
    "pretrain": "audio vit tubes combiner latent reconstruction cross_attention",
    "audio_pretrain": "audio",
    "finetune": "all",
}
# as it comes; and with two parts that have no parameters
MODELS = (("transformer", "causal"), ("concat", "none"))


@pytest.mark.parametrize(("combiner", "latent"), MODELS)
@pytest.mark.parametrize("name", FROZEN)
def test_only_the_frozen_parts_keep_their_bits(name: str, combiner: str, latent: str) -> None:
    model = tiny_model(combiner=combiner, latent=latent).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    freeze(model, PhaseConfig(trained=TRAINED[name]))
    optimizer = build_optimizer(model, PhaseConfig(lr=0.01, weight_decay=0.1), fused=False)
    for seed in range(2):
        losses = model(random_batch(model.config, seed=seed))
        optimizer.zero_grad()
        (losses["text"] + losses["latent"] + losses["video"]).backward()
        optimizer.step()
    after = model.state_dict()
    changed = {
        group
        for group, names in parameter_groups(model).items()
        if any(not torch.equal(before[key], after[key]) for key in names)
    }
    learnt = {group for group, names in parameter_groups(model).items() if names}
    assert changed == learnt - FROZEN[name]


def test_a_phase_after_another_unfreezes_what_the_first_froze() -> None:
    model = tiny_model()
    freeze(model, PhaseConfig(trained="audio"))
    freeze(model, PhaseConfig(trained="all"))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_part_that_serves_a_loss_of_weight_0_does_not_learn() -> None:
    model = tiny_model()
    freeze(model, PhaseConfig(trained="all", video_weight=0.0))
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == set(parameter_groups(model)["reconstruction"])


def test_an_unknown_part_is_named_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'sound'.*audio"):
        freeze(tiny_model(), PhaseConfig(trained="sound"))
