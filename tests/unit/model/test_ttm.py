"""The Token Turing Machine against a plain loop written from equations 3 to 6."""

from __future__ import annotations

import torch
from support.model import relative_error, tiny_model


def token_learner(learner, tokens):
    """Attention pooling for one clip: tokens [n, d] -> [outputs, d]."""
    outputs = []
    for j in range(learner.weigh.out_features):
        scores = []
        for token in tokens:
            hidden = torch.nn.functional.gelu(learner.hidden(learner.norm(token)))
            scores.append(learner.weigh.weight[j] @ hidden + learner.weigh.bias[j])
        weights = torch.softmax(torch.stack(scores), 0)
        outputs.append(sum(w * token for w, token in zip(weights, tokens, strict=True)))
    return torch.stack(outputs)


@torch.no_grad()
def test_equals_the_equations():
    combiner = tiny_model(dtype=torch.float64, combiner="ttm", queries="last").combiner
    u = torch.randn(2, 3, 10, 24, dtype=torch.float64)
    for clip in range(2):
        memory = torch.zeros(5, 24, dtype=torch.float64)
        for t in range(3):
            z = token_learner(combiner.read, torch.cat([memory, u[clip, t]]))  # eq. 3
            o = z[None]
            for block in combiner.process:  # eq. 4
                o = block(o)
            memory = token_learner(combiner.write, torch.cat([memory, o[0], u[clip, t]]))  # eq. 5
            x = combiner.norm(token_learner(combiner.output, o[0]))  # eq. 6
            assert relative_error(combiner(u, None)[clip, t], x) < 1e-12


def test_state_does_not_grow():
    combiner = tiny_model(combiner="ttm", max_chunks=64).combiner
    state = combiner.init_state(3, "cpu", torch.float32)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"memory": (3, 5, 24)}
