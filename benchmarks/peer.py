"""Against mirasol-pytorch, the only other implementation of Mirasol3B that installs: train step and forward pass.

    pip install --no-deps --target DIR mirasol-pytorch beartype einops x-transformers==1.25.10
    PYTHONPATH=DIR mirasol bench peer [--json FILE] [--rounds 7] [--quick]

If it is not installed, the benchmark says so and ends. Newer x-transformers do not build it. Widths, depths, patches,
frames and text length are the same, and both predict every token of the text; its other options have their
defaults. Its encoders for video and audio have as many layers as our shared ViT; ours has as many again for audio
alone. It has linear maps that predict and reconstruct, ours has the reconstruction transformer; the parameters are
equal. Its video arrives as RGB floats, ours as the bytes of the decoder. Its audio axes fit
only where a chunk has as many audio columns as the clip has chunks: here 8.
"""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from functools import partial
from typing import Any

import torch
from common import arguments, in_turn, median_ms, ratio, report, spread, table
from inputs import random_batch, weighted_loss

from mirasol.model.config import ModelConfig, ModelSpec, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config

PEER = "mirasol_pytorch"
CHUNKS, FRAMES, SIDE, TUBE, MELS, AUDIO_PATCH = 8, 4, 64, (4, 8, 8), 32, (4, 16)
COMBINED, WORDS, HEADS = 4, 256, 4
PARTS = (  # part, has the peer one, have we
    ("chunks, patches, causal latent model, text decoder", "yes", "yes"),
    ("combiner sees earlier chunks (P eq. 2)", "no", "yes"),
    ("Token Turing Machine combiner", "no", "yes"),
    ("sparse 3D tubes; one ViT for video and audio", "no", "yes"),
    ("target of the latent h_t", "h_t+1", "x_t+1 (P 3.3)"),
    ("video reconstruction", "one linear map", "a transformer"),
    ("audio reconstruction", "one linear map", "a transformer"),
    ("one modality alone; a missing one masked", "no", "yes"),
    ("features are masked", "always", "in training"),
    ("streaming step with bounded state", "no", "yes"),
    ("training, data, evaluation, export, tests", "no", "yes"),
)


def peer_model(module: Any, width: int, depth: int) -> Any:
    """Their model."""
    encoder = {"dim": width, "depth": depth, "heads": HEADS, "attn_dim_head": width // HEADS}
    return module.Mirasol(
        dim=width,
        num_text_tokens=WORDS,
        video_image_size=SIDE,
        video_frames_per_timechunk=FRAMES,
        audio_freq_dim=MELS,
        audio_time_dim_per_timechunk=CHUNKS,
        audio_patch_size=(AUDIO_PATCH[1], AUDIO_PATCH[0]),
        video_patch_size=(TUBE[1], TUBE[0]),
        video_recon_patch_size=(8, FRAMES),
        audio_encoder=dict(encoder),
        video_encoder=dict(encoder),
        text_max_seq_len=64,
        encoder_depth=2,
        decoder_depth=depth,
        combiner_depth=2,
        combiner_output_num_tokens=COMBINED,
        attn_dim_head=64,
        attn_heads=HEADS,
    )


def our_config(width: int, depth: int, reconstruction: int) -> ModelConfig:
    """The same sizes; ``reconstruction`` is the hidden width of that transformer's MLP."""
    spec = ModelSpec(preset="demo", queries="last", num_queries=COMBINED)
    config = build_config(
        spec, size=SIDE, frames_per_chunk=FRAMES, mels=MELS, audio_columns=CHUNKS, vocabulary=WORDS, max_text=64
    )
    fusing = Sizes(2, width, 4 * width, HEADS, 64)  # theirs leaves the heads of all but the encoders at 64
    changed = {
        "tubes": (TUBE,),
        "tube_strides": (TUBE,),
        "audio_patch": AUDIO_PATCH,
        "vit": Sizes(depth, width, 4 * width, HEADS, width // HEADS),
        "audio_layers": depth,
        "combiner_sizes": fusing,
        "latent_sizes": fusing,
        "reconstruction_sizes": Sizes(1, width, reconstruction, HEADS, 64),
        "reconstruction_size": 8,
        "reconstruction_tube": (FRAMES, 4, 4),
        "text": Sizes(depth, width, 4 * width, HEADS, 64),
    }
    return ModelConfig(**{**vars(config), **changed})


def parameters(model: torch.nn.Module) -> int:
    """How many."""
    return sum(p.numel() for p in model.parameters())


def our_model(width: int, depth: int, wanted: int) -> Mirasol:
    """Our model with as many parameters as ``wanted``, as nearly as the reconstruction's MLP allows."""
    with torch.device("meta"):
        least = parameters(Mirasol(our_config(width, depth, 1)))
    return Mirasol(our_config(width, depth, max(1, (wanted - least) // (2 * width + 1))))


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__, rounds=7).parse_args()
    table([("what each has", PEER, "mirasol"), *PARTS])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(PEER)
    except ImportError as error:
        print(f"\n{PEER} cannot be imported here ({error}): nothing was timed")
        report("peer", options.json, {}, {"skipped": f"{PEER} cannot be imported: {error}", "parts": PARTS})
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width, depth, clips = (32, 1, 1) if options.quick else (192, 4, 4)
    theirs = peer_model(module, width, depth)
    ours = our_model(width, depth, parameters(theirs))
    length = 33  # a first token, then 32 to predict
    batch = random_batch(ours.config, clips, CHUNKS, 1, length, predicted=length - 1)
    draws = torch.Generator().manual_seed(0)
    inputs = {
        "video": torch.randn(clips, 3, CHUNKS * FRAMES, SIDE, SIDE, generator=draws),
        "audio": torch.randn(clips, MELS, CHUNKS * CHUNKS, generator=draws),
        "text": batch.tokens[:, 0, 1:],
    }
    losses = {"theirs": lambda: theirs(**inputs), "ours": lambda: weighted_loss(ours(batch))}
    optimizers = {
        "theirs": torch.optim.AdamW(theirs.parameters(), fused=True),
        "ours": torch.optim.AdamW(ours.parameters(), fused=True),
    }

    def train(name: str) -> None:
        optimizers[name].zero_grad()
        losses[name]().backward()
        optimizers[name].step()

    def forward(name: str) -> None:
        with torch.no_grad():
            losses[name]()

    steps = in_turn({name: partial(train, name) for name in losses}, options.rounds)
    forwards = in_turn({name: partial(forward, name) for name in losses}, options.rounds)
    ratios = {
        "peer_train_time": ratio(steps["ours"], steps["theirs"]),
        "peer_forward_time": ratio(forwards["ours"], forwards["theirs"]),
    }
    counts = {"theirs": parameters(theirs), "ours": parameters(ours)}
    rows: list[tuple[object, ...]] = [("", PEER, "mirasol", "mirasol / theirs")]
    rows.append(("parameters", *counts.values(), f"{counts['ours'] / counts['theirs']:.3f}"))
    for name, taken in (("train_time", steps), ("forward_time", forwards)):
        found = spread(ratios[f"peer_{name}"])
        rows.append((f"{name}, ms of processor", median_ms(taken["theirs"]), median_ms(taken["ours"]), found))
    print(f"\nwidth {width}, depth {depth}, {CHUNKS} chunks of {FRAMES} frames of {SIDE}, {clips} clips, one thread\n")
    table(rows)
    by_part = {"theirs": _by_part(theirs), "ours": _by_part(ours)}
    milliseconds = {
        name: {side: median_ms(x) for side, x in taken.items()}
        for name, taken in (("train", steps), ("forward", forwards))
    }
    figures = {"parameters": counts, "by_part": by_part, "milliseconds": milliseconds, "parts": PARTS}
    report("peer", options.json, ratios, figures)


def _by_part(model: torch.nn.Module) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[name.split(".")[0]] += parameter.numel()
    return dict(counts)


if __name__ == "__main__":
    main()
