"""Reconstruction of the next chunk's sound, which is optional (P 3.5)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import random_batch, tiny_config, tiny_model

from mirasol.model.mirasol import Mirasol
from mirasol.model.parameter_groups import parameter_groups


def test_it_is_off_by_default():
    model = tiny_model()
    assert model.audio_reconstruction is None
    assert "audio" not in model(random_batch(model.config))


def test_patches_cover_time_then_mels():
    model = tiny_model(audio_reconstruction=True, audio_patch=(4, 4))
    audio = torch.zeros(1, 8, 8)
    audio[0, 5, 6] = 1.0  # second stretch of columns, second band of mels; second column, third mel of the patch
    target = model.audio_reconstruction.target(audio)
    assert target.shape == (1, 4, 16)
    assert target.nonzero().tolist() == [[0, 3, 1 * 4 + 2]]


def test_a_perfect_prediction_has_no_loss():
    model = tiny_model(audio_reconstruction=True)
    batch = random_batch(model.config)
    model.audio_reconstruction.forward = lambda h: model.audio_reconstruction.target(batch.audio[:, 1:].flatten(0, 1))
    assert model(batch)["audio"].abs() < 1e-6


@torch.no_grad()
def test_the_loss_counts_where_the_next_chunk_is_heard_and_this_one_holds_something():
    model = tiny_model(audio_reconstruction=True)
    batch = random_batch(model.config, clips=1, chunks=3)
    both = model(batch)["audio"]
    batch.audio_present[0, 2] = False  # the pair of chunks 1 and 2 no longer counts: what chunk 2 holds is no matter
    one = model(batch)["audio"]
    louder = dataclasses.replace(batch, audio=batch.audio.clone())
    louder.audio[0, 2] *= -3
    assert torch.equal(model(louder)["audio"], one)
    assert not torch.equal(one, both)
    batch.video_present[0, 0] = batch.audio_present[0, 0] = False
    assert model(batch)["audio"] == 0


def test_every_parameter_learns_and_is_frozen_with_the_other_reconstruction():
    model = tiny_model(audio_reconstruction=True)
    model(random_batch(model.config))["audio"].backward()
    parameters = dict(model.audio_reconstruction.named_parameters(prefix="audio_reconstruction"))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())
    assert set(parameters) <= set(parameter_groups(model)["reconstruction"])


def test_a_patch_larger_than_the_chunk_is_refused():
    with pytest.raises(ValueError, match="larger than the 8x8 frame"):
        Mirasol(tiny_config(audio_reconstruction=True, overlap=2, audio_patch=(12, 8)))
