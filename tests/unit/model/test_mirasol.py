"""The whole model: what it may know, what it must ignore, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import PRESENCE, random_batch, tiny_config, tiny_model, with_presence

from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol, parameter_groups

COMBINERS = ["transformer", "ttm"]


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("modality", ["video", "audio"])
@torch.no_grad()
def test_the_future_never_changes_the_past(combiner, modality):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    changed = dataclasses.replace(batch, **{modality: getattr(batch, modality).clone()})
    getattr(changed, modality)[:, 2] = getattr(random_batch(model.config, seed=1), modality)[:, 2]
    a, b = model.encode(batch), model.encode(changed)
    for x, y in ((a.x, b.x), (a.h, b.h)):
        assert torch.equal(x[:, :2], y[:, :2])
        assert not torch.equal(x[:, 2], y[:, 2])


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("modality", ["video", "audio"])
@torch.no_grad()
def test_history_is_used(combiner, modality):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    changed = dataclasses.replace(batch, **{modality: getattr(batch, modality).clone()})
    getattr(changed, modality)[:, 0] = getattr(random_batch(model.config, seed=1), modality)[:, 0]
    difference = (model.encode(batch).x - model.encode(changed).x).abs().amax((0, 2, 3))
    assert (difference > 1e-4).all()


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("queries", ["last", "pooled"])
@pytest.mark.parametrize("presence", PRESENCE)
@torch.no_grad()
def test_content_of_a_missing_modality_does_not_matter(combiner, queries, presence):
    model = tiny_model(combiner=combiner, queries=queries)
    batch = with_presence(random_batch(model.config), presence)
    other = random_batch(model.config, seed=1)
    flags = {"video": batch.video_present[:, :, None, None, None], "audio": batch.audio_present[:, :, None, None]}
    changed = dataclasses.replace(
        batch, **{name: torch.where(flag, getattr(batch, name), getattr(other, name)) for name, flag in flags.items()}
    )
    a, b = model.eval()(batch), model(changed)
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert torch.isfinite(value).all(), name


@torch.no_grad()
def test_missing_is_not_zero():
    model = tiny_model()
    batch = random_batch(model.config)
    silent = dataclasses.replace(batch, audio=torch.zeros_like(batch.audio))
    missing = dataclasses.replace(silent, audio_present=torch.zeros_like(batch.audio_present))
    assert not torch.allclose(model.encode(silent).x, model.encode(missing).x, atol=1e-3)


@pytest.mark.parametrize("combiner", COMBINERS)
@torch.no_grad()
def test_an_absent_chunk_is_invisible_to_later_ones(combiner):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    for flags in (batch.video_present, batch.audio_present):
        flags[:, 1] = False
    moved = dataclasses.replace(batch, video=batch.video.clone())
    moved.video[:, 1] = 99
    assert torch.equal(model.encode(batch).x, model.encode(moved).x)
    if combiner == "ttm":  # its memory does not count chunks: absent is the same as never having been
        kept = [0, 2, 3]
        names = ("video", "audio", "video_present", "audio_present")
        shorter = dataclasses.replace(batch, **{name: getattr(batch, name)[:, kept] for name in names})
        assert torch.allclose(model.encode(batch).x[:, kept], model.encode(shorter).x, atol=1e-6)


@torch.no_grad()
def test_random_masking_and_dropout_are_off_in_eval():
    model = tiny_model(dropout=0.5)
    batch = random_batch(model.config)
    assert torch.equal(model.encode(batch).h, model.encode(batch).h)
    model.train()
    assert not torch.equal(model.encode(batch).h, model.encode(batch).h)


def test_masking_hides_features_from_the_latent_model_only():
    model = tiny_model(feature_mask=0.5).train()
    batch = random_batch(model.config)
    a, b = model.encode(batch), model.encode(batch)
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.h, b.h)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_more_frames_need_no_parameter_more(combiner):
    counts = {
        k: sum(p.numel() for p in tiny_model(combiner=combiner, frames_per_chunk=k, audio_columns=2 * k).parameters())
        for k in (4, 8, 16)
    }
    assert len(set(counts.values())) == 1
    model = tiny_model(combiner=combiner)
    for chunks in (1, 7):
        assert torch.isfinite(model(random_batch(model.config, chunks=chunks))["text"])


def test_every_parameter_learns():
    for combiner, queries in (("transformer", "pooled"), ("transformer", "last"), ("ttm", "last"), ("ttm", "pooled")):
        model = tiny_model(combiner=combiner, queries=queries)
        losses = model(random_batch(model.config))
        (losses["text"] + losses["latent"] + losses["video"]).backward()
        still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert still == []


def test_parameter_groups_are_a_partition():
    model = tiny_model()
    groups = parameter_groups(model)
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(names) == len(set(names))
    expected = "text_backbone cross_attention audio vit tubes combiner latent reconstruction"
    assert set(groups) == set(expected.split())


def test_config_survives_json():
    import json

    config = tiny_config()
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_same_seed_gives_the_same_weights():
    torch.manual_seed(5)
    a = Mirasol(tiny_config()).state_dict()
    torch.manual_seed(5)
    b = Mirasol(tiny_config()).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("presence", ["both", "gaps"])
def test_bfloat16_autocast_gives_about_the_same_losses(combiner, presence):
    model = tiny_model(combiner=combiner)
    batch = with_presence(random_batch(model.config), presence)
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)
    for name in ("text", "latent", "video"):
        assert rough[name].item() == pytest.approx(exact[name].item(), rel=0.03)
    sum(rough[name] for name in ("text", "latent", "video")).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
