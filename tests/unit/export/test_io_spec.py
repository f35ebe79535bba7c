"""The specification of inputs and outputs fits the graphs."""

from __future__ import annotations

import pytest
import torch
from support.bundle import MAX_CHUNKS, MAX_TEXT, bundle_model
from support.model import tiny_model

from mirasol.core.errors import MirasolError
from mirasol.export.io_spec import step_graphs


@pytest.mark.parametrize(
    ("combiner", "states"),
    [
        ("transformer", ["keys_values", "valid"]),
        ("ttm", ["memory"]),
        ("cls", ["keys_values", "valid"]),
        ("perceiver", ["keys_values", "valid"]),
        ("concat", []),
    ],
)
def test_graphs_have_the_names_of_the_contract(combiner: str, states: list[str]) -> None:
    aligned, latent, text = step_graphs(bundle_model(combiner))
    inputs = ["video", "audio", "video_present", "audio_present"]
    assert [t.name for t in aligned.spec.inputs] == inputs + states
    assert [t.name for t in aligned.spec.outputs] == ["x", *(f"{name}_next" for name in states)]
    assert [t.name for t in latent.spec.inputs] == ["x", "keys_values", "valid"]
    assert [t.name for t in latent.spec.outputs] == ["h", "keys_values_next", "valid_next"]
    assert [t.name for t in text.spec.inputs] == ["token", "memory", "memory_valid", "cache", "length"]
    assert [t.name for t in text.spec.outputs] == ["logits", "cache_next", "length_next"]


def test_chunks_that_overlap_carry_their_end() -> None:
    aligned = step_graphs(tiny_model(overlap=2))[0].spec
    states = {state.input: (aligned.input(state.input).dtype, state.initial) for state in aligned.states}
    assert states == {
        "keys_values": ("float32", 0.0),
        "valid": ("bool", 0.0),
        "overlap_video": ("uint8", 0.0),
        "overlap_video_present": ("bool", 0.0),
        "overlap_audio": ("float32", 0.0),
        "overlap_audio_present": ("bool", 0.0),
    }


def test_the_memory_holds_max_chunks_and_the_cache_max_text() -> None:
    model = bundle_model()
    text = step_graphs(model)[2].spec
    slots = MAX_CHUNKS * model.config.num_queries
    assert text.input("memory").shape == (1, slots, model.config.latent_sizes.width)
    assert text.input("memory_valid").shape == (1, slots)
    assert text.input("cache").shape[3] == MAX_TEXT


def test_the_first_step_takes_the_same_shapes_as_every_other() -> None:
    for graph in step_graphs(bundle_model("ttm")):
        with torch.no_grad():
            outputs = graph.module(*graph.example())
        found = [(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in outputs]
        assert found == [(t.shape, t.dtype) for t in graph.spec.outputs]


def test_a_model_that_cannot_stream_is_refused() -> None:
    with pytest.raises(MirasolError, match="no steps to export: latent model 'bidirectional' sees the chunks"):
        step_graphs(bundle_model(latent="bidirectional"))


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        step_graphs(bundle_model().train())


def test_a_state_that_one_number_cannot_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundle_model()
    monkeypatch.setattr(model.latent, "init_state", lambda *_: {"s": torch.arange(3.0)})
    with pytest.raises(ValueError, match="latent_step: state s begins with more than one value"):
        step_graphs(model)
