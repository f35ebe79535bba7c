"""The whole model: causality, missing content, and refused input."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import PRESENCE, VARIANTS, random_batch, tiny_config, tiny_model, with_presence

from mirasol.model.config import COMBINERS, LATENTS, ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups

PATHS = [(combiner, latent) for combiner in COMBINERS for latent in LATENTS]


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


@pytest.mark.parametrize("combiner", [name for name in COMBINERS if name != "concat"])
@pytest.mark.parametrize("modality", ["video", "audio"])
@torch.no_grad()
def test_history_is_used(combiner, modality):
    model = tiny_model(combiner=combiner)
    batch = random_batch(model.config)
    changed = dataclasses.replace(batch, **{modality: getattr(batch, modality).clone()})
    getattr(changed, modality)[:, 0] = getattr(random_batch(model.config, seed=1), modality)[:, 0]
    difference = (model.encode(batch).x - model.encode(changed).x).abs().amax((0, 2, 3))
    assert (difference > 1e-4).all()


@pytest.mark.parametrize(("combiner", "queries"), VARIANTS)
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


@pytest.mark.parametrize(("combiner", "latent"), PATHS)
@torch.no_grad()
def test_nothing_is_masked_or_dropped_in_eval(combiner, latent):
    batch = random_batch(tiny_config())
    batch.masked = torch.ones(*batch.video_present.shape, tiny_config().num_queries, dtype=torch.bool)
    plain, noisy = (tiny_model(combiner=combiner, latent=latent, dropout=rate) for rate in (0.0, 0.9))
    a, b = plain(batch), noisy(batch)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["text"], noisy.train()(batch)["text"])


@pytest.mark.parametrize("combiner", COMBINERS)
def test_more_frames_need_no_parameter_more(combiner):
    counts = set()
    with torch.device("meta"):
        for frames in (128, 512, 2048):  # of 16 chunks
            sizes = {"frames_per_chunk": frames // 16, "audio_columns": frames // 8}
            counts.add(sum(p.numel() for p in Mirasol(tiny_config(combiner=combiner, **sizes)).parameters()))
    assert len(counts) == 1
    model = tiny_model(combiner=combiner)
    for chunks in (1, 7):
        assert torch.isfinite(model(random_batch(model.config, chunks=chunks))["text"])


@pytest.mark.parametrize(("combiner", "queries"), VARIANTS)
@pytest.mark.parametrize("latent", LATENTS)
def test_every_parameter_learns(combiner, queries, latent):
    model = tiny_model(combiner=combiner, queries=queries, latent=latent)
    losses = model(random_batch(model.config))
    (losses["text"] + losses["latent"] + losses["video"]).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(("combiner", "latent"), [("transformer", "causal"), ("concat", "none")])
def test_parameter_groups_are_a_partition(combiner, latent):
    model = tiny_model(combiner=combiner, latent=latent)
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


def test_config_of_earlier_weights_loads_by_its_old_names():
    values = tiny_config().to_dict()
    values["combined"] = values.pop("num_queries")
    assert ModelConfig.from_dict(values) == tiny_config()


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


@pytest.mark.parametrize("missing", ["video", "audio"])
@pytest.mark.parametrize("combiner", COMBINERS)
@torch.no_grad()
def test_a_branch_that_no_clip_needs_does_not_run(combiner, missing, monkeypatch):
    model = tiny_model(combiner=combiner, audio_reconstruction=True)
    batch = random_batch(model.config)
    getattr(batch, f"{missing}_present").fill_(False)
    expected = model(batch)
    branch = model.video_tubes if missing == "video" else model.audio
    monkeypatch.setattr(branch, "forward", None)
    found = model(dataclasses.replace(batch, **{f"has_{missing}": False}))
    assert expected.pop(missing) == 0
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in expected.items()}
