"""The presets, built without memory, beside the paper's parameter counts (S 4)."""

from __future__ import annotations

import pytest
import torch

from mirasol.model.config import PRESETS as NAMES
from mirasol.model.config import ModelSpec
from mirasol.model.mirasol import Mirasol, parameter_groups
from mirasol.model.presets import PRESETS, build_config

PAPER = {  # millions; the paper gives no figure for the rest
    "base": {
        "tubes": 1.5,
        "vit": 630,
        "audio": 100,
        "combiner": 128,
        "latent": 128,
        "reconstruction": 128,
        "cross_attention": 400,
        "total": 3000,
    },
    "small": {
        "vit": 300,
        "audio": 100,
        "combiner": 128,
        "latent": 128,
        "reconstruction": 128,
        "cross_attention": 20,
        "total": 1150,
    },
}


def counts(name, **changes):
    inputs = {"size": 224, "frames_per_chunk": 8, "mels": 128, "audio_columns": 32, "max_text": 64}
    if name == "demo":
        inputs = {"size": 48, "frames_per_chunk": 4, "mels": 32, "audio_columns": 16, "max_text": 48}
    vocabulary = 256 if name == "demo" else 262_144
    with torch.device("meta"):
        spec = ModelSpec(preset=name, combined=4 if name == "demo" else 32)
        model = Mirasol(build_config(spec, vocabulary=vocabulary, **{**inputs, **changes}))
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    parts = {group: sum(sizes[n] for n in names) for group, names in parameter_groups(model).items()}
    return {**parts, "total": sum(sizes.values())}


@pytest.mark.parametrize("name", ["small", "base"])
def test_parts_beside_the_paper(name, capsys):
    ours = counts(name)
    with capsys.disabled():
        print(f"\n{name:>20}       ours      paper (millions)")
        for part, count in ours.items():
            print(f"{part:>20} {count / 1e6:10.1f} {PAPER[name].get(part, float('nan')):10.1f}")
    for part in ("vit", "audio"):
        assert ours[part] / 1e6 == pytest.approx(PAPER[name][part], rel=0.35)


@pytest.mark.parametrize("name", ["small", "base"])
def test_more_frames_need_no_parameter_more(name):
    assert counts(name) == counts(name, frames_per_chunk=32, audio_columns=128, size=448)


def test_the_demo_has_about_a_million():
    assert 0.9e6 < counts("demo")["total"] < 1.4e6


def test_names_are_declared():
    assert set(PRESETS) == set(NAMES)
    with pytest.raises(ValueError, match="'huge', expected one of"):
        build_config(
            ModelSpec(preset="huge"), size=48, frames_per_chunk=4, mels=32, audio_columns=16, vocabulary=9, max_text=9
        )
