"""The presets, built without memory, compared with the paper's parameter counts (S 4)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mirasol.model.config import PRESETS as NAMES
from mirasol.model.config import ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.accounting import chunk_tokens, parameter_counts
from mirasol.model.sizes.paper import PARAMETERS, paper_config, paper_figures
from mirasol.model.sizes.presets import PRESETS, build_config
from mirasol.model.tubes import chunk_lattices

# parts for which S 4 agrees with itself: docs/decisions/0017 has the arithmetic of the others
AGREED = {
    "base": ("tubes", "vit", "audio", "latent", "cross-attention", "embedding"),
    "small": ("vit", "audio", "combiner", "latent", "embedding"),
}


def on_meta(config):
    with torch.device("meta"):
        return Mirasol(config)


@pytest.fixture(scope="module", params=["small", "base"])
def counted(request):
    return request.param, parameter_counts(on_meta(paper_config(request.param)))


def test_parts_are_the_papers(counted):
    name, counts = counted
    for part in AGREED[name]:
        assert counts[part] == pytest.approx(PARAMETERS[name][part].count, rel=0.05), part


def test_totals_are_the_papers(counted):
    name, counts = counted
    assert counts["total"] == pytest.approx(PARAMETERS[name]["total"].count, rel={"base": 0.08, "small": 0.05}[name])


def test_what_is_off_has_a_reason(counted):
    name, counts = counted
    for part, figure in PARAMETERS[name].items():
        assert abs(counts[part] / figure.count - 1) <= 0.03 or figure.why, part


@pytest.mark.parametrize("part", ["combiner", "reconstruction"])
def test_the_transformers_themselves_are_128_mebi(part):
    blocks = [p for n, p in on_meta(paper_config("base")).named_parameters() if n.startswith(part) and ".blocks." in n]
    assert sum(p.numel() for p in blocks) == pytest.approx(128 * 2**20, rel=0.002)


def test_audio_and_video_are_a_little_over_half():
    """P 3.6, and "a bit over 1.5B in total" in S 4, hold if cross-attention is counted there."""
    counts = parameter_counts(on_meta(paper_config("base")))
    text = counts["text layers"] + counts["embedding"]
    assert 0.5 < 1 - text / counts["total"] < 0.6
    assert counts["total"] - text == pytest.approx(1.5e9, rel=0.05)


@pytest.mark.parametrize(("name", "combiner"), [("base", "transformer"), ("base", "ttm"), ("small", "transformer")])
def test_more_frames_need_no_parameter_more(name, combiner):
    counts = [
        parameter_counts(on_meta(paper_config(name, frames=frames, combiner=combiner))) for frames in (128, 512, 2048)
    ]
    assert counts[0] == counts[1] == counts[2]


def test_a_larger_frame_needs_no_parameter_more():
    small, large = (parameter_counts(on_meta(paper_config("base", size=size))) for size in (224, 448))
    assert small == large


@pytest.mark.parametrize(
    ("frames", "size", "tokens", "audio"),
    [
        (128, 224, [392, 196, 196], 8),  # 2x14x14 + 1x14x14 + 14x14
        (128, 448, [1568, 784, 784], 8),
        (512, 224, [1568, 784, 196], 32),  # four times the tubes; still the patches of one frame
    ],
)
def test_tokens_follow_from_frames_and_size(frames, size, tokens, audio):
    lattices, heard = chunk_tokens(paper_config("base", frames=frames, size=size))
    assert [lattice.tokens for lattice in lattices] == tokens
    assert heard == audio


def test_a_tube_longer_than_the_chunk_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="tube 8x4x4 is 8 frames long, a chunk has 6"):
        chunk_lattices(dataclasses.replace(paper_config("base"), frames_per_chunk=6))


def test_the_demo_has_about_a_million():
    spec = ModelSpec(preset="demo", num_queries=4)
    inputs = {"size": 48, "frames_per_chunk": 4, "mels": 32, "audio_columns": 16, "max_text": 48, "vocabulary": 256}
    assert 0.9e6 < parameter_counts(on_meta(build_config(spec, **inputs)))["total"] < 1.4e6


def test_another_combiner_has_no_figure_of_its_own():
    figures = paper_figures(paper_config("base", combiner="ttm"), "base")
    assert "latent" in figures
    assert not {"combiner", "total"} & set(figures)


def test_frames_that_make_no_whole_chunks_are_refused():
    with pytest.raises(ValueError, match="100 frames in 16 chunks: expected a multiple of 16"):
        paper_config("base", frames=100)


def test_names_are_declared():
    assert set(PRESETS) == set(NAMES)
    with pytest.raises(ValueError, match="'huge', expected one of"):
        build_config(
            ModelSpec(preset="huge"), size=48, frames_per_chunk=4, mels=32, audio_columns=16, vocabulary=9, max_text=9
        )
