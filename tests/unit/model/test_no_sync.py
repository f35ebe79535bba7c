"""A training step never makes a GPU wait for the host: nothing is read back, nothing is copied; and it is one graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.media import TINY_CLIP
from support.model import random_batch, tiny_config, tiny_model, with_presence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mirasol.data.loading.loader import log_mel_of
from mirasol.data.loading.waveform import chunks_shape
from mirasol.model.batch import Batch, Waveform, text_targets
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol

VARIANTS: list[dict[str, Any]] = [
    {"queries": "last"},
    {"queries": "pooled", "dropout": 0.1},
    {"combiner": "ttm"},
    {"combiner": "perceiver"},
    {"combiner": "concat", "latent": "bidirectional"},
    {"overlap": 2, "audio_reconstruction": True},
]
PRESENCE = ("both", "gaps")


class Copies(TorchDispatchMode):
    """Collects the operations that copy from one device to another, and tensors made of a list or number."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {x.device for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)}
        if len(devices) > 1 or func.overloadpacket is torch.ops.aten.lift_fresh:
            self.found.add(str(func))
        return out


def loaded(config: ModelConfig, presence: str) -> Batch:
    """A batch as the loader hands it over."""
    batch = with_presence(random_batch(config), presence)
    masked = torch.rand(*batch.video_present.shape, config.num_queries) < 0.5
    return dataclasses.replace(batch, targets=text_targets(batch.tokens, batch.answer_mask), masked=masked)


def copies_of_a_step(changes: dict[str, Any], presence: str, device: str) -> set[str]:
    """Those of a forward and a backward pass on a batch that is on ``device`` already."""
    model = tiny_model(**changes).train().to(device)
    batch = loaded(model.config, presence).to(device)
    with Copies() as copies:
        losses = model(batch)
        torch.stack([losses[name] for name in ("text", "latent", "video", "audio") if name in losses]).sum().backward()
    return copies.found


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_nothing_is_read_and_nothing_copied(changes, presence):
    """On `meta`, where a tensor has no value: reading one, or choosing by a mask of one, is an error."""
    assert copies_of_a_step(changes, presence, "meta") == set()


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_no_constant_is_made(changes, presence):
    """On the CPU: for `meta` torch.tensor(...) makes none."""
    assert copies_of_a_step(changes, presence, "cpu") == set()


def test_log_mel_makes_no_constant():
    shape = (2, 1, *chunks_shape(TINY_CLIP))
    masks = torch.tensor([[[0, 2, 1, 3]]] * 2)
    sound = Waveform(torch.zeros(shape, dtype=torch.int16), torch.full(shape[:3], 900), masks, torch.ones(2, 1))
    log_mel, present = log_mel_of(TINY_CLIP), torch.ones(2, shape[2], dtype=torch.bool)
    with Copies() as copies:
        log_mel.of_waveform(sound, present)
    assert copies.found == set()


def test_copies_are_noticed():
    with Copies() as copies:
        torch.randn(2).to("meta")
        torch.tensor([1.0, 2.0])
    assert {name.split(".")[1] for name in copies.found} == {"_to_copy", "lift_fresh"}


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool((x > 0).all())])
def test_reading_on_meta_is_an_error(read):
    with pytest.raises((RuntimeError, NotImplementedError)):
        read(torch.randn(3, device="meta"))


def test_a_frozen_branch_keeps_nothing_for_the_backward_pass():
    """The video branch, while the audio phase trains the other (S 4)."""
    model, kept = tiny_model(), []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("audio."))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda tensor: tensor):
        model.video_features(random_batch(model.config))
    assert kept == []


@pytest.mark.parametrize(("changes", "presence"), [({}, "gaps"), ({"combiner": "ttm"}, "both")])
def test_the_forward_pass_is_one_graph(changes, presence):
    model = Mirasol(tiny_config(**changes)).train()
    batch = loaded(model.config, presence).to("cpu")
    expected = model(batch)
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager", fullgraph=True)(batch)  # an error where the graph breaks
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in expected.items()}
