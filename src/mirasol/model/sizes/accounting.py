"""What a model costs, by arithmetic: parameters by part, floating-point operations, bytes of a stream's state.

A multiply and an add are two operations (FLOPs). Counted are the matrix products: linear maps, and the two products
of attention over the pairs of query and key that may see each other (the exact count of eq. 8 and of causal text, not
the square that a dense mask computes). Not counted are normalisation, softmax, activations, additions, the folding of
colour into the tubes' weights (once a batch), and the lookup of embeddings.
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

CHUNK_PARTS = ("tubes", "video ViT", "audio", "combiner", "latent")  # what encoding a chunk costs


def parameter_counts(model: Mirasol) -> dict[str, int]:
    """Parameters of each part that the paper gives a figure for, and the rest; ``total`` is their sum."""
    counts = dict.fromkeys(
        (
            *("tubes", "patches", "vit", "audio", "combiner", "latent", "reconstruction"),
            *("text layers", "cross-attention", "embedding"),
        ),
        0,
    )
    for name, parameter in model.named_parameters():
        counts[_part(name, len(model.config.tubes))] += parameter.numel()
    return {**{part: count for part, count in counts.items() if count}, "total": sum(counts.values())}


def _part(name: str, tubes: int) -> str:
    first, _, rest = name.partition(".")
    if first == "video_tubes":
        return "tubes" if int(rest.split(".")[1]) < tubes else "patches"
    if first == "audio_reconstruction":
        return "reconstruction"
    if first != "text":
        return first
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
        predicted: tokens among them from which another one is predicted; all if ``None``. Only these take the
            whole of the last layer and the output head.

    Raises:
        ValueError: a combiner or latent model that is not counted here, or more tokens predicted than there are.
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

    Nothing is frozen, nothing computed twice. The first linear maps, which need no gradient of their input, are
    counted as the others: under 1 % of `base`.
    """
    return 3 * sum(forward_flops(config, chunks, text_lengths, predicted).values())


def state_bytes(model: Mirasol, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    """Bytes of one stream's state: each step's own, and the last R chunks of h that the text model reads."""
    c = model.config
    states = {
        "encoder and combiner": EncoderCombiner(model).init_state(1, "meta", dtype),
        "latent": Latent(model).init_state(1, "meta", dtype),
        "text": Text(model).init_state(1, "meta", dtype),
        "memory of h": {
            "h": torch.zeros(c.max_chunks, c.combined, c.latent_sizes.width, device="meta", dtype=dtype),
            "valid": torch.zeros(c.max_chunks, c.combined, device="meta", dtype=torch.bool),
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


def _seen(chunks: int, window: int) -> int:
    """Pairs of chunks (t, earlier or equal) within the window."""
    return sum(min(t + 1, window) for t in range(chunks))


def _chunk_transformer(
    sizes: Sizes, chunks: int, window: int, tokens: int, outputs: int, resample: bool = False
) -> int:
    """The last layer, or with ``resample`` each, computes ``outputs`` tokens of a chunk only."""
    seen, total = _seen(chunks, window), 0
    for layer in range(sizes.layers):
        queries = outputs if resample or layer == sizes.layers - 1 else tokens
        total += _layer(sizes, chunks * tokens, chunks * queries, seen * queries * tokens)
    return total


def _combiner(config: ModelConfig, chunks: int, features: int) -> int:
    sizes, m, window = config.combiner_sizes, config.combined, config.max_chunks
    width = sizes.width
    project = 0 if config.vit.width == width else _linear(chunks * features, config.vit.width, width)
    pooled = _linear(chunks * m, features, width) if config.queries == "pooled" else 0
    match config.combiner:
        case "transformer":
            tokens = features + m if config.queries == "pooled" else features
            return project + pooled + _chunk_transformer(sizes, chunks, window, tokens, m)
        case "ttm":
            return project + pooled + chunks * _turn(config, features)
        case "cls":
            return project + _chunk_transformer(sizes, chunks, window, features + m, m)
        case "perceiver":
            return project + pooled + _chunk_transformer(sizes, chunks, window, features + m, m, resample=True)
        case "concat":
            return project + _linear(chunks * m, features, width)
    raise ValueError(f"combiner {config.combiner!r} is not counted")


def _turn(config: ModelConfig, features: int) -> int:
    """One turn of the Token Turing Machine (eqs. 3 to 6)."""
    width, memory, read = config.combiner_sizes.width, config.ttm_memory, config.ttm_read

    def learner(tokens: int, outputs: int) -> int:
        scores = _linear(tokens, width, BOTTLENECK) + _linear(tokens, BOTTLENECK, outputs)
        return scores + _linear(outputs, tokens, width)

    process = config.ttm_sizes.layers * _block(config.ttm_sizes, read)
    whole = memory + read + features
    return learner(memory + features, read) + process + learner(whole, memory) + learner(read, config.combined)


def _latent(config: ModelConfig, chunks: int) -> int:
    sizes, m = config.latent_sizes, config.combined
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
    sizes, m, total = config.reconstruction_sizes, config.combined, 0
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
    memory = min(chunks, config.max_chunks) * config.combined
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
