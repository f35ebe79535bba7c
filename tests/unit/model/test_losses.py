"""The losses equal their definitions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from support.model import random_batch, tiny_model

from mirasol.model.batch import text_targets
from mirasol.model.losses import Objective, cosine_loss, latent_statistics, loss_counts, text_loss


def test_text_loss_weighs_texts_not_tokens():
    logits = torch.randn(4, 7)
    targets = torch.tensor([1, 2, 3, 4])
    text = torch.tensor([0, 0, 0, 3])  # text 0 has three tokens, text 3 one; 1 and 2 are padding
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.3]])
    loss, each = text_loss(logits, targets, text, weight, label_smoothing=0.1)
    nll = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
    assert torch.allclose(each, torch.tensor([[nll[:3].mean(), 0.0], [0.0, nll[3]]]))
    assert torch.allclose(loss, nll[:3].mean() + 0.3 * nll[3])


def test_text_loss_of_the_model_is_that_of_its_logits():
    model = tiny_model()
    batch = random_batch(model.config)
    batch.answer_mask[0, 1, 3:6] = True
    batch.text_weight[1, 0] = 0.25
    with torch.no_grad():
        encoded = model.encode(batch)
        nll = -model.logits(batch.tokens, encoded.h, encoded.present)[:, :, :-1].log_softmax(-1)
        nll = nll.gather(-1, batch.tokens[:, :, 1:, None])[..., 0] * batch.answer_mask[:, :, 1:]
        each = nll.sum(-1) / batch.answer_mask.sum(-1)
        losses = model(batch)
    assert torch.allclose(losses["text_each"], each, atol=1e-5)
    assert torch.allclose(losses["text"], (each * batch.text_weight).sum() / batch.text_weight.sum(), atol=1e-5)


def test_text_targets_are_the_marked_tokens_clip_by_clip():
    tokens = torch.arange(24).view(2, 3, 4)
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 0, 2:] = mask[0, 2, 1] = mask[1, 1, 3] = True
    mask[1, 2, 0] = True  # nothing comes before a first token
    found = text_targets(tokens, mask)
    assert found.tokens.tolist() == [2, 3, 9, 19]
    assert found.texts.tolist() == [0, 0, 2, 4]
    row = tokens.flatten(1).gather(1, found.packed)
    before = row.gather(1, found.positions).flatten()[found.rows]
    assert torch.equal(before, found.tokens - 1)
    read = [row[clip][found.owners[clip] < 3].tolist() for clip in range(2)]
    assert read == [[0, 1, 2, 8], [16, 17, 18]]  # up to the last token that predicts


@torch.no_grad()
def test_a_batch_with_its_targets_has_the_losses_of_one_without():
    model = tiny_model()
    batch = random_batch(model.config)
    batch.answer_mask[0, 1, 3:6] = True
    expected = model(batch)
    batch.targets = text_targets(batch.tokens, batch.answer_mask)
    assert all(torch.equal(value, expected[name]) for name, value in model(batch.to("cpu")).items())
    with pytest.raises(ValueError, match="targets is on meta, the model on cpu"):
        model(dataclasses.replace(batch, targets=batch.to("meta").targets))


def test_cosine_loss_counts_valid_vectors():
    predicted, target = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5)
    valid = torch.tensor([True, False])
    loss = cosine_loss(predicted, target, valid)
    assert torch.allclose(loss, (1 - F.cosine_similarity(predicted[0], target[0], dim=-1)).mean())
    loss.backward()
    assert (predicted.grad[1] == 0).all()
    assert cosine_loss(predicted, target, valid & False) == 0


def test_latent_loss_compares_h_with_the_next_x():
    model = tiny_model()
    batch = random_batch(model.config)
    with torch.no_grad():
        encoded = model.encode(batch)
        expected = 1 - F.cosine_similarity(encoded.h[:, :-1], encoded.x[:, 1:], dim=-1).mean()
        assert torch.allclose(model(batch)["latent"], expected, atol=1e-6)


@pytest.mark.parametrize("through", [False, True])
def test_the_latent_loss_moves_its_target_if_asked_to(through):
    model = tiny_model(combiner="concat")  # its chunks do not see each other
    only = Objective(text=0.0, video=0.0, latent_target_gradient=through)
    video = random_batch(model.config, chunks=2)
    features = model.video_features(video).detach().requires_grad_()
    encoded = model.join(features, model.audio_features(video).detach(), video)
    model._latent_loss(encoded, only.latent_target_gradient).backward()
    assert features.grad[:, 0].any()
    assert bool(features.grad[:, 1].any()) == through


def test_a_single_chunk_has_no_next_one():
    model = tiny_model()
    losses = model(random_batch(model.config, chunks=1))
    assert losses["latent"] == 0
    assert losses["video"] == 0


def test_parts_of_a_batch_add_up_to_the_whole():
    model = tiny_model(dtype=torch.float64, audio_reconstruction=True)
    batch = random_batch(model.config, clips=4, dtype=torch.float64)
    batch.text_weight[1:3, 1] = torch.tensor([0.25, 0.0])
    batch.audio_present[:2, 1:] = batch.video_present[3, 2:] = batch.audio_present[3, 2:] = False
    whole, totals = model(batch), loss_counts(batch)
    parts = [model(dataclasses.replace(batch, **halves), totals=totals) for halves in _halves(batch)]
    for name in ("text", "latent", "video", "audio"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], rtol=1e-12, atol=0)


def _halves(batch):
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return [{name: value[cut] for name, value in tensors.items()} for cut in (slice(0, 1), slice(1, 4))]


def test_a_loss_of_weight_0_is_not_computed():
    model = tiny_model()
    found = model(random_batch(model.config), Objective(text=0.0, video=0.0))
    assert "text" not in found and "video" not in found and found["latent"] > 0


def test_statistics_show_a_collapse():
    varied = torch.randn(64, 4, 3, 16, generator=torch.Generator().manual_seed(0))
    healthy = latent_statistics(varied)
    frozen = latent_statistics(varied[:, :1].expand(-1, 4, -1, -1))
    one = latent_statistics(torch.randn(8, 4, 3, 1) * torch.randn(16))
    assert 0.8 < healthy["x_std_time"] < 1.0 and abs(healthy["x_neighbour_cosine"]) < 0.2
    assert frozen["x_std_time"] < 1e-3 and frozen["x_neighbour_cosine"] > 0.999
    assert healthy["x_rank"] > 10 and one["x_rank"] < 1.01
