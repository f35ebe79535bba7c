"""The cost of a model by arithmetic: parameters by part, floating-point operations, bytes of a stream's state.

A multiply and an add are two operations (FLOPs). Counted are the matrix products: linear maps, and the two products
of attention over the visible pairs of query and key (the exact count of eq. 8 and of causal text, not the square that
a dense mask computes). Not counted are normalisation, softmax, activations, additions, the folding of colour into the
tubes' weights (once a batch), and the lookup of embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mirasol.model.audio import audio_grid
from mirasol.model.combiners.ttm import BOTTLENECK
from mirasol.model.config import ModelConfig, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.streaming import EncoderCombiner, Latent, Text
from mirasol.model.tubes import Lattice, chunk_lattices

CHUNK_PARTS = ("tubes", "video ViT", "audio", "combiner", "latent")  # the parts that encode a chunk
COUNTED = ("tubes", "patches", "vit", "audio", "combiner", "latent", "reconstruction")
COUNTED_TEXT = ("text layers", "cross-attention", "embedding")


def parameter_counts(model: Mirasol) -> dict[str, int]:
    """Parameters of each part that the paper gives a figure for, and the rest; ``total`` is their sum."""
    counts = dict.fromkeys(COUNTED + COUNTED_TEXT, 0)
    for name, parameter in model.named_parameters():
        counts[_part(name, len(model.config.tubes))] += parameter.numel()
    return {**{part: count for part, count in counts.items() if count}, "total": sum(counts.values())}


def _part(name: str, tubes: int) -> str:
    first, _, rest = name.partition(".")
    if first == "video_tubes":
        return "tubes" if int(rest.split(".")[1]) < tubes else "patches"
    if first != "text":
        return "reconstruction" if first == "audio_reconstruction" else first
    if rest.startswith("embedding"):
        return "embedding"
    return "cross-attention" if ".cross_attention." in rest or rest == "memory_features" else "text layers"


def chunk_tokens(config: ModelConfig) -> tuple[list[Lattice], int]:
    """The lattices of a chunk's video tokens, each with its number, and s, the number of its audio tokens."""
    rows, bands = audio_grid(config)
    return chunk_lattices(config), rows * bands


def forward_flops(
    config: ModelConfig, chunks: int, text_lengths: Sequence[int] = (), predicted: int | None = None
) -> dict[str, int]:
    """Operations of one clip's forward pass, losses included, by part.

    Args:
        config: sizes of the model.
        chunks: T.
        text_lengths: tokens of each text of the clip that enter the decoder.
        predicted: tokens from which another one is predicted, all if ``None``: only these take the whole of the last
            layer and the output head.

    Raises:
        ValueError: a combiner or latent model that is not counted here, or more tokens predicted than given.
    """
    lattices, audio = chunk_tokens(config)
    video = sum(lattice.tokens for lattice in lattices)
    columns, mels = config.audio_patch
    vit, blocks = config.vit, config.audio_layers
    flops = {
        "tubes": chunks * sum(_tube_flops(lattice, vit.width) for lattice in lattices),
        "video ViT": chunks * vit.layers * _block(vit, video),
        "audio": chunks * (_linear(audio, columns * mels, vit.width) + (blocks + vit.layers) * _block(vit, audio)),
        "combiner": _combiner(config, chunks, video + audio),
        "latent": _latent(config, chunks),
        "reconstruction": (chunks - 1) * _reconstruction(config),
    }
    if text_lengths:
        flops["text"] = _text(config, chunks, text_lengths, predicted)
    return flops


def training_flops(config: ModelConfig, chunks: int, text_lengths: Sequence[int], predicted: int | None = None) -> int:
    """Operations of one clip's training step: the backward pass takes two products for each of the forward pass.

    Nothing is frozen or recomputed. The gradients of the inputs, which nothing needs, count too: under 1 % of `base`.
    """
    return 3 * sum(forward_flops(config, chunks, text_lengths, predicted).values())


def state_bytes(model: Mirasol, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    """Bytes of one stream's state: that of each step, and the last R chunks of h that the text model reads."""
    c = model.config
    shape = (c.max_chunks, c.num_queries)
    states = {
        "encoder and combiner": EncoderCombiner(model).init_state(1, "meta", dtype),
        "latent": Latent(model).init_state(1, "meta", dtype),
        "text": Text(model).init_state(1, "meta", dtype),
        "memory of h": {
            "h": torch.zeros(*shape, c.latent_sizes.width, device="meta", dtype=dtype),
            "valid": torch.zeros(shape, device="meta", dtype=torch.bool),
        },
    }
    return {
        name: sum(tensor.numel() * tensor.element_size() for tensor in state.values()) for name, state in states.items()
    }


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def _tube_flops(lattice: Lattice, width: int) -> int:
    t, h, w = lattice.shape
    return _linear(lattice.tokens, t * h * w + 2 * t * (h // 2) * (w // 2), width)  # luma, and two planes of chroma


def _attention(sizes: Sizes, pairs: int) -> int:
    """Scores and the weighted sum, for so many pairs of query and key."""
    return 4 * sizes.heads * sizes.head * pairs


def _mlp(sizes: Sizes, tokens: int) -> int:
    return (3 if sizes.gated else 2) * _linear(tokens, sizes.width, sizes.hidden)


def _layer(sizes: Sizes, tokens: int, outputs: int, pairs: int) -> int:
    """Keys and values of ``tokens``; queries, their attention and MLP for ``outputs`` of them."""
    inner = sizes.heads * sizes.head
    projections = _linear(tokens, sizes.width, 2 * inner) + 2 * _linear(outputs, sizes.width, inner)
    return projections + _attention(sizes, pairs) + _mlp(sizes, outputs)


def _block(sizes: Sizes, tokens: int) -> int:
    return _layer(sizes, tokens, tokens, tokens * tokens)


def _chunk_transformer(
    sizes: Sizes, chunks: int, window: int, tokens: int, outputs: int, resample: bool = False
) -> int:
    """The last layer, or with ``resample`` each, computes ``outputs`` tokens of a chunk only."""
    seen = sum(min(t + 1, window) for t in range(chunks))  # pairs of chunks within the window
    total = 0
    for layer in range(sizes.layers):
        queries = outputs if resample or layer == sizes.layers - 1 else tokens
        total += _layer(sizes, chunks * tokens, chunks * queries, seen * queries * tokens)
    return total


def _combiner(config: ModelConfig, chunks: int, features: int) -> int:
    sizes, m, window, name = config.combiner_sizes, config.num_queries, config.max_chunks, config.combiner
    pooled = config.queries == "pooled" or name == "concat"  # means of features, which concat's output are
    total = _linear(chunks * m, features, sizes.width) if pooled else 0
    if config.vit.width != sizes.width:
        total += _linear(chunks * features, config.vit.width, sizes.width)
    match name:
        case "transformer" | "cls" | "perceiver":
            tokens = features if name == "transformer" and not pooled else features + m
            return total + _chunk_transformer(sizes, chunks, window, tokens, m, resample=name == "perceiver")
        case "ttm":
            return total + _turns(config, chunks, features)
        case "concat":
            return total
    raise ValueError(f"combiner {name!r} is not counted")


def _turns(config: ModelConfig, chunks: int, features: int) -> int:
    """The turns of the Token Turing Machine (eqs. 3 to 6); the last one writes nothing."""
    width, memory, read = config.combiner_sizes.width, config.ttm_memory, config.ttm_read

    def learner(tokens: int, outputs: int) -> int:
        scores = _linear(tokens, width, BOTTLENECK) + _linear(tokens, BOTTLENECK, outputs)
        return scores + _linear(outputs, tokens, width)

    process = config.ttm_sizes.layers * _block(config.ttm_sizes, read)
    turn = learner(memory + features, read) + process + learner(read, config.num_queries)
    return chunks * turn + (chunks - 1) * learner(memory + read + features, memory)


def _latent(config: ModelConfig, chunks: int) -> int:
    sizes, m = config.latent_sizes, config.num_queries
    match config.latent:
        case "causal":
            return _chunk_transformer(sizes, chunks, config.max_chunks, m, m)
        case "bidirectional":
            return sizes.layers * _block(sizes, chunks * m)
        case "none":
            return 0
    raise ValueError(f"latent model {config.latent!r} is not counted")


def _reconstruction(config: ModelConfig) -> int:
    """The next chunk of video, and of audio where the model has it, from one h_t."""
    t, h, w = config.reconstruction_tube
    side = config.reconstruction_size
    pieces = [((config.frames_per_chunk // t) * (side // h) * (side // w), 3 * t * h * w)]
    if config.audio_reconstruction:
        columns, mels = config.audio_patch
        pieces.append(((config.audio_columns // columns) * (config.mels // mels), columns * mels))
    sizes, m, total = config.reconstruction_sizes, config.num_queries, 0
    for tokens, values in pieces:
        if config.latent_sizes.width != sizes.width:
            total += _linear(m, config.latent_sizes.width, sizes.width)
        total += sizes.layers * _block(sizes, m + tokens) + _linear(tokens, sizes.width, values)
    return total


def _text(config: ModelConfig, chunks: int, lengths: Sequence[int], predicted: int | None) -> int:
    sizes, tokens = config.text, sum(lengths)
    predicted = tokens if predicted is None else predicted
    if not 0 <= predicted <= tokens:
        raise ValueError(f"{predicted} tokens predicted of texts with {tokens}")
    memory = min(chunks, config.max_chunks) * config.num_queries
    inner = sizes.heads * sizes.head
    causal = sum(n * (n + 1) // 2 for n in lengths)
    total = _linear(predicted, sizes.width, config.vocabulary)
    for layer in range(sizes.layers):
        outputs = predicted if layer == sizes.layers - 1 else tokens
        total += _linear(tokens, sizes.width, 3 * inner) + _attention(sizes, causal)  # self-attention, all tokens
        total += _linear(outputs, inner, sizes.width) + _mlp(sizes, outputs)
        if (layer + 1) % config.cross_every == 0:
            total += _linear(memory, config.latent_sizes.width, 2 * inner)  # once for all texts
            total += 2 * _linear(outputs, sizes.width, inner) + _attention(sizes, outputs * memory)
            total += (3 if sizes.gated else 2) * _linear(outputs, sizes.width, config.cross_hidden)  # its own MLP
    return total
