"""The Token Turing Machine against a plain loop written from equations 3 to 6."""

from __future__ import annotations

import json

import pytest
import torch
from support import plain
from support.model import relative_error, tiny_config, tiny_model

from mirasol.model.config import ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.training.weights import load_model, save_weights


def token_learner(learner, tokens):
    """Attention pooling for one clip: a list of tokens [d] -> a list of as many as the learner has outputs."""
    scores = []
    for token in tokens:
        hidden = plain.gelu(plain.linear(learner.hidden.weight, learner.hidden.bias, plain.norm(learner.norm, token)))
        scores.append(plain.linear(learner.weigh.weight, learner.weigh.bias, hidden))
    outputs = []
    for column in torch.stack(scores).T:
        shares = torch.exp(column - column.max())
        outputs.append(sum(share * token for share, token in zip(shares / shares.sum(), tokens, strict=True)))
    return outputs


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("encoder", [False, True])
@torch.no_grad()
def test_equals_the_equations(encoder, missing, dtype, tolerance):
    combiner = tiny_model(dtype=dtype, combiner="ttm", queries="last", ttm_encoder=encoder).combiner
    random = torch.Generator().manual_seed(0)
    u = torch.randn(2, 3, 10, 24, dtype=dtype, generator=random)
    valid = torch.rand(2, 3, 10, generator=random) > (0.4 if missing else -1)
    ours, _ = combiner(u, valid if missing else None)
    for clip in range(2):
        memory = [torch.zeros(24, dtype=dtype)] * 5
        for t in range(3):
            features = list(u[clip, t][valid[clip, t]])  # those that are missing are simply not there
            z = token_learner(combiner.read, memory + features)  # eq. 3
            o = [token + place for token, place in zip(z, combiner.process_positions, strict=True)] if encoder else z
            for layer in combiner.process:  # eq. 4
                o = [plain.block(layer, token, o) for token in o]
            o = [plain.norm(combiner.process_norm, token) for token in o] if encoder else o
            memory = token_learner(combiner.write, memory + o + features)  # eq. 5
            x = torch.stack([plain.norm(combiner.norm, token) for token in token_learner(combiner.output, o)])  # eq. 6
            assert relative_error(ours[clip, t], x) <= tolerance


def test_state_does_not_grow():
    combiner = tiny_model(combiner="ttm", max_chunks=64).combiner
    state = combiner.init_state(3, "cpu", torch.float32)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"memory": (3, 5, 24)}


def test_nothing_is_written_behind_a_clip():
    combiner = tiny_model(combiner="ttm").combiner
    calls = []
    combiner.write.register_forward_hook(lambda *_: calls.append(1))
    _, after = combiner(torch.randn(1, 3, 10, 24), None)
    assert (len(calls), after) == (2, {})


def test_positions_start_small():
    assert 0.015 < Mirasol(tiny_config(combiner="ttm")).combiner.process_positions.std().item() < 0.025


def test_weights_without_positions_and_norm_can_still_be_read(tmp_path):
    model = Mirasol(tiny_config(combiner="ttm", ttm_encoder=False))
    save_weights(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["ttm_encoder"]  # as earlier versions wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).config == model.config


def test_new_models_have_them():
    sizes = {"size": 48, "frames_per_chunk": 4, "mels": 32, "audio_columns": 16, "vocabulary": 9, "max_text": 9}
    assert [build_config(ModelSpec(combiner=name), **sizes).ttm_encoder for name in ("ttm", "transformer")] == [
        True,
        False,
    ]
