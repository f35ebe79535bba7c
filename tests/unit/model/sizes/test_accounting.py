"""The operations that `accounting` reckons are those that torch counts while a tiny model runs."""

from __future__ import annotations

import pytest
import torch
from support.model import TINY, random_batch, tiny_config, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mirasol.model.attention.chunk_causal import chunk_causal_attention
from mirasol.model.config import COMBINERS, LATENTS, Sizes
from mirasol.model.sizes.accounting import forward_flops, parameter_counts, state_bytes, training_flops
from mirasol.model.sizes.paper import paper_config
from mirasol.model.streaming import EncoderCombiner

T, L = 4, 7
GATED = Sizes(layers=2, width=24, hidden=40, heads=2, head=8, gated=True)
NARROW = Sizes(layers=2, width=20, hidden=40, heads=2, head=6)


def attention_flops(q, k, *rest, **settings):
    """Of the fused kernel on a CPU, which torch does not count: queries by keys, and their weights by values."""
    (batch, heads, queries, head), keys = q, k[2]
    return 4 * batch * heads * queries * keys * head


def attention_backward_flops(grad, q, k, *rest, **settings):
    return 2 * attention_flops(q, k)


KERNELS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def counted(run):
    """Operations of ``run`` as torch counts them; the plain kernel of attention is made of products that it knows."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        run()
    return counter.get_total_flops()


def encoding(model, batch):
    """Operations of the parts that encode a clip."""
    model.requires_grad_(False)  # the counter stumbles over parameters that a module hands on under no_grad
    return counted(lambda: model.encode(batch))


def reckoned(config, *parts):
    flops = forward_flops(config, T)
    return sum(flops[part] for part in parts or ("tubes", "video ViT", "audio", "combiner", "latent"))


@pytest.mark.parametrize(
    "changes",
    [
        *({"combiner": name, "queries": "last"} for name in COMBINERS),
        *({"latent": name} for name in LATENTS),
        {"combiner": "ttm", "queries": "pooled"},
        {"max_chunks": 2},
        {"overlap": 2},
        {"patch": 0, "audio_patch": (2, 4), "audio_layers": 0},
        {"combiner_sizes": GATED, "latent_sizes": GATED},
        {"vit": NARROW},
    ],
    ids=str,
)
def test_encoding_on_the_loop_backend(changes):
    model = tiny_model(**changes).requires_grad_(False)  # torch's counter trips over views of parameters
    batch = random_batch(model.config, clips=1, chunks=T)
    assert encoding(model, batch) == reckoned(model.config)


@pytest.mark.parametrize(("backend", "pairs_of_chunks"), [("dense", T * T), ("loop", 1 + 2 + 2 + 2)])
@torch.no_grad()
def test_attention_counts_only_what_may_be_seen(backend, pairs_of_chunks):
    q, k, v = (torch.randn(1, T, n, TINY.heads, TINY.head) for n in (3, 5, 5))
    found = counted(lambda: chunk_causal_attention(q, k, v, window=2, backend=backend))
    assert found == pairs_of_chunks * 3 * 5 * 4 * TINY.heads * TINY.head


@pytest.mark.parametrize("changes", [{}, {"audio_reconstruction": True}], ids=str)
@torch.no_grad()
def test_reconstruction(changes):
    model = tiny_model(**changes)
    h = torch.randn(T - 1, model.config.num_queries, TINY.width)
    parts = [part for part in (model.reconstruction, model.audio_reconstruction) if part is not None]
    assert counted(lambda: [part(h) for part in parts]) == reckoned(model.config, "reconstruction")


@pytest.mark.parametrize("changes", [{}, {"cross_every": 2, "cross_hidden": 32}, {"max_chunks": 2}], ids=str)
@pytest.mark.parametrize("predicted", [None, 3])
@torch.no_grad()
def test_text(changes, predicted):
    model = tiny_model(**changes)
    h, present = torch.randn(1, T, model.config.num_queries, TINY.width), torch.ones(1, T, dtype=torch.bool)
    tokens = torch.randint(5, 19, (1, 2, L))
    picked = None if predicted is None else torch.arange(predicted)[None]
    found = counted(lambda: model.text.head(model.text(tokens, model.text.memory_of(h, present), picked=picked)[0]))
    above = TINY.layers * 2 * (L * L - L * (L + 1) // 2) * 4 * TINY.heads * TINY.head  # torch counts the whole square
    assert found - above == forward_flops(model.config, T, [L, L], predicted)["text"]


def test_training_takes_three_times_the_forward_pass():
    model = tiny_model(vit=GATED, audio_layers=2)
    batch = random_batch(model.config, clips=1, chunks=T, texts=1)
    length, answer = batch.tokens.shape[2] - 1, int(batch.answer_mask.sum())

    def step():
        losses = model(batch)
        (losses["text"] + losses["latent"] + losses["video"]).backward()

    found = counted(step)
    assert found == pytest.approx(training_flops(model.config, T, [length], answer), rel=0.05)


def test_more_tokens_predicted_than_there_are_is_refused():
    with pytest.raises(ValueError, match="9 tokens predicted of texts with 7"):
        forward_flops(tiny_config(), T, [L], 9)


@pytest.mark.parametrize(("field", "name"), [("combiner", "mean"), ("latent", "rnn")])
def test_unknown_parts_are_refused(field, name):
    with pytest.raises(ValueError, match=f"'{name}' is not counted"):
        forward_flops(tiny_config(**{field: name}), T)


def test_parts_add_up():
    counts = parameter_counts(tiny_model(audio_reconstruction=True))
    assert counts.pop("total") == sum(counts.values())


def test_state_bytes_are_those_of_a_real_state():
    model = tiny_model()
    state = EncoderCombiner(model).init_state(1)
    assert state_bytes(model)["encoder and combiner"] == sum(t.numel() * t.element_size() for t in state.values())


def test_a_chunk_of_the_base_model():
    """Against the usual estimate, two operations per weight and token: the ViT is 630 M weights."""
    flops = forward_flops(paper_config("base"), 16)
    dense = 2 * 630e6 * 16 * 784
    assert dense < flops["video ViT"] < 1.15 * dense
