"""Text decoders: the same logits where they are the same function, all reasons where they are not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.model import tiny_config
from support.openweights import gpt_neox, gpt_neox_config, gpt_neox_logits

from mirasol.model.config import Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.pretrained.text import read_text
from mirasol.model.pretrained.vocabulary import Vocabulary, move_rows

SIZES = Sizes(layers=2, width=24, hidden=48, heads=2, head=12)
SAME = Vocabulary({i: i for i in range(19)}, 19)


def new_model() -> Mirasol:
    torch.manual_seed(0)
    return Mirasol(tiny_config(text=SIZES)).eval()


def test_logits_are_the_files_logits_until_the_model_has_learnt_to_look() -> None:
    file, model = gpt_neox(SIZES, 19), new_model()
    found = read_text(file, gpt_neox_config(SIZES, 19), SAME, model)
    assert found.problems == []
    model.load_state_dict(model.state_dict() | found.tensors)
    model.double()
    tokens = torch.randint(0, 19, (1, 1, 10))
    h = torch.randn(1, 3, 3, 24, dtype=torch.float64)
    logits = model.logits(tokens, h, torch.ones(1, 3, dtype=torch.bool))[0, 0]
    expected = gpt_neox_logits(tokens[0, 0], {k: v.double() for k, v in file.items()}, SIZES)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_the_body_is_loaded_and_cross_attention_is_not() -> None:
    model = new_model()
    found = read_text(gpt_neox(SIZES, 19), gpt_neox_config(SIZES, 19), SAME, model)
    own = {name for name in found.shapes if name.startswith("text.") and ".cross_attention." not in name}
    assert own - set(found.tensors) == {"text.memory_features"}
    assert {how for how, _ in found.sources.values()} == {"loaded", "zero"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_parallel_residual", True),
        ("rotary_pct", 0.25),
        ("rotary_emb_base", 500000),
        ("hidden_act", "gelu_new"),
        ("num_attention_heads", 4),
        ("num_hidden_layers", 6),
        ("rope_scaling", {"type": "linear"}),
    ],
)
def test_another_function_is_refused_with_its_reason(key: str, value: object) -> None:
    settings = gpt_neox_config(SIZES, 19) | {key: value}
    (problem,) = read_text(gpt_neox(SIZES, 19), settings, SAME, new_model()).problems
    assert problem.startswith(f"{key}: {value!r} in its config.json, expected ")


def test_without_config_json_its_defaults_count() -> None:
    problems = read_text(gpt_neox(SIZES, 19), {}, SAME, new_model()).problems
    assert any(problem.startswith("use_parallel_residual: True") for problem in problems)


def test_an_output_of_its_own_is_refused() -> None:
    file = gpt_neox(SIZES, 19)
    file["embed_out.weight"] += 1
    (problem,) = read_text(file, gpt_neox_config(SIZES, 19), SAME, new_model()).problems
    assert problem.startswith("embed_out.weight: another matrix")


@pytest.mark.parametrize(
    ("key", "reason"), [("transformer.wte.weight", "GPT-2"), ("model.layers.0.mlp.gate_proj.weight", "Llama")]
)
def test_known_decoders_that_differ_are_refused_by_name(key: str, reason: str) -> None:
    (problem,) = read_text({key: torch.zeros(1)}, {}, SAME, new_model()).problems
    assert problem.startswith(reason)


def test_rows_move_with_their_pieces_and_the_others_get_their_length() -> None:
    vocabulary = Vocabulary.match(["<pad>", "▁a", "▁b", "new"], ["▁b", "x", "▁a"])
    assert vocabulary == Vocabulary({1: 2, 2: 0}, 3)
    old = torch.tensor([[3.0, 4.0], [9.0, 9.0], [0.0, 5.0]])
    moved = move_rows(torch.tensor([[0.0, 0.1], [1.0, 1.0], [1.0, 1.0], [10.0, 0.0]]), old, vocabulary.rows)
    assert moved.tolist() == [[0.0, 5.0], [0.0, 5.0], [3.0, 4.0], [5.0, 0.0]]


def test_a_damaged_block_is_named_with_both_shapes() -> None:
    file = gpt_neox(SIZES, 19)
    file["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"] = torch.zeros(24, 47)
    (problem,) = read_text(file, gpt_neox_config(SIZES, 19), SAME, new_model()).problems
    assert problem == "gpt_neox.layers.1.mlp.dense_4h_to_h.weight: [24, 47] in the file, expected [24, 48]"


def test_heads_that_are_not_width_over_heads_here_are_refused() -> None:
    torch.manual_seed(0)
    model = Mirasol(tiny_config(text=dataclasses.replace(SIZES, head=8)))
    (problem,) = read_text(gpt_neox(SIZES, 19), gpt_neox_config(SIZES, 19), SAME, model).problems
    assert problem == "heads are width / heads wide there, 8 with 2 heads here"
